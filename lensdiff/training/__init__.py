"""One loop for every task, what each task gives it, and the recipes of the shipped models."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=[
        "autoencoder",
        "checks",
        "classifier",
        "classifier_recipes",
        "diffusion",
        "fit",
        "latents",
        "loop",
        "published",
        "recipe",
        "recipes",
        "reflow",
        "solution",
        "state",
        "transfer",
    ],
)
