"""Networks: the U-Net of the denoiser, and the classifier with its backbones and heads."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["backbones", "classifier", "embeddings", "unet"],
)
