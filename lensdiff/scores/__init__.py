"""What generated images and classifiers are worth, each number with all that it depends on."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=[
        "card",
        "classification",
        "conditional",
        "distances",
        "extrapolation",
        "features",
        "jackknife",
        "light",
        "memorisation",
        "references",
        "spread",
        "statistics",
    ],
)
