"""Strong lenses: which there are, how they are simulated, observed and measured."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=[
        "colour",
        "defects",
        "equation",
        "fit",
        "measure",
        "parameters",
        "population",
        "simulate",
        "substructure",
        "survey",
        "telescope",
    ],
)
