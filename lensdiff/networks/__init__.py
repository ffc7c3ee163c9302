"""Networks: the U-Net of the denoiser, autoencoders, and the classifier with its backbones."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["autoencoder", "backbones", "classifier", "embeddings", "latent", "unet"],
)
