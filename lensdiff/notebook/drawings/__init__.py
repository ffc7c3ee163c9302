"""Drawings of the series' ideas, made by code: each function returns a matplotlib Figure."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=[
        "blocks",
        "latents",
        "lens",
        "network",
        "page",
        "process",
        "protocol",
        "sampling",
        "scores",
        "style",
        "training",
        "transformer",
    ],
    submod_attrs={
        "blocks": ["attention", "residual_blocks"],
        "latents": ["two_stages"],
        "lens": ["condition_symmetries", "lens_geometry"],
        "network": ["unet"],
        "process": ["chain", "targets"],
        "page": ["project"],
        "protocol": ["one_protocol"],
        "sampling": ["guidance", "sampler_step"],
        "scores": ["frechet_distance", "precision_recall"],
        "training": ["several_processes", "training_step"],
        "transformer": ["dit"],
    },
)
