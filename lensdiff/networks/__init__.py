"""Networks: U-Net and transformer of a denoiser, autoencoders, classifier and its backbones."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=[
        "autoencoder",
        "backbones",
        "classifier",
        "embeddings",
        "latent",
        "transformer",
        "unet",
    ],
)
