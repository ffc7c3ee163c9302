"""Drawings of the series' ideas, made by code: each function returns a matplotlib Figure."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["lens", "network", "page", "process", "sampling", "style"],
    submod_attrs={
        "lens": ["condition_symmetries", "lens_geometry"],
        "network": ["unet"],
        "process": ["chain", "targets"],
        "page": ["project"],
        "sampling": ["guidance", "sampler_step"],
    },
)
