"""lensdiff: learn diffusion models by building one for strong gravitational lenses.

    import lensdiff as ld

    model = ld.load("lens150")
    lenses = model.draw(16, seed=0)  # (16, 1, 150, 150), values in [0, 1]

Names are loaded when they are used. Floors, from below; a room imports only from floors below its
own: errors, runtime; storage, lensing, diffusion; networks, data, notebook; model; training,
scores; studies.
"""

import sys

try:
    import lazy_loader
except ModuleNotFoundError:
    cure = "Run .venv/bin/python, which `make run` makes, or: python -m pip install -e ."
    about = f"What lensdiff needs is not installed in this Python, {sys.executable}"
    raise ModuleNotFoundError(f"{about}. {cure}") from None

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=[
        "data",
        "diffusion",
        "errors",
        "lensing",
        "networks",
        "notebook",
        "runtime",
        "scores",
        "storage",
        "studies",
        "training",
    ],
    submod_attrs={
        "data.colour": ["colour_lenses"],
        "data.digits": ["digits"],
        "data.folders": ["common_test", "download", "folder", "pictures"],
        "data.images": ["ImageSet", "lenses", "simulated"],
        "data.parts": ["simulated_parts"],
        "lensing.survey": ["diverse", "model_i"],
        "model": ["Model", "Sampling", "load", "save"],
        "notebook": ["drawings", "plots"],
        "notebook.exercises": ["check", "solution"],
        "notebook.helpers": ["say"],
        "scores.card": ["Card", "score"],
        "scores.features": ["extractor"],
        "storage": ["shipped"],
        "training": ["recipes"],
        "training.fit": ["fit"],
    },
)
