"""Images to learn from: sets, their split, symmetries and labels, and readers of folders."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["colour", "digits", "folders", "images", "labels", "npy", "parts"],
)
