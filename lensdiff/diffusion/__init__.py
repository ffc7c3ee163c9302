"""The noise process and the samplers, in torch alone."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["process", "sampling"],
)
