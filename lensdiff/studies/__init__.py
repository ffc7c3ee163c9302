"""What the stored tables of the notebooks were made with, each of them resumable."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=[
        "ablation_compare",
        "ablation_runs",
        "ablations",
        "augmentation",
        "autoencoders",
        "conditional",
        "conditional_report",
        "cost",
        "drawings",
        "gallery",
        "gallery_page",
        "heads",
        "latent_lenses",
        "latents",
        "physics",
        "recipes",
        "references",
        "reflow",
        "samplers",
        "scoring",
        "simulate",
        "sizes",
        "table",
        "train",
        "transformers",
        "where",
    ],
)

# What each stored study is, by the name that the command line knows.
STUDIES = {
    "ablations": "small fair runs that differ in one thing",
    "samplers": "every sampler at several numbers of network calls",
    "where": "at which noise level a model's error is born",
    "heads": "heads and numbers of training images of the classifier",
    "references": "what data/reference holds of test and training lenses",
    "sizes": "distance and KID against the number of images",
    "physics": "lens fits of simulated and generated lenses",
    "recipes": "the published solutions and ours, at equal minutes",
    "transformers": "transformers beside U-Nets at equal weights and minutes",
    "reflow": "how many calls straight paths save",
    "latent_lenses": "lenses in latents beside lenses in pixels",
    "latents": "digits as latents, and the published experiment again",
    "autoencoders": "what autoencoders of digits and lenses lose",
    "augmentation": "do generated lenses help a classifier of simulated ones?",
    "drawings": "the drawings of the series' ideas, as PNG files",
    "gallery": "the README's results and data/checkpoints/README.md, from the JSON files",
}
