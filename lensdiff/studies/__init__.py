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
        "drawings",
        "gallery",
        "gallery_page",
        "heads",
        "latent_lenses",
        "latents",
        "physics",
        "references",
        "samplers",
        "scoring",
        "sizes",
        "table",
        "where",
    ],
)
