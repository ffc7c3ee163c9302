"""What a notebook needs around its subject: helpers, exercises, figures, and the runner."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=[
        "drawings",
        "exercises",
        "files",
        "helpers",
        "html",
        "lessons",
        "opening",
        "parameters",
        "plan",
        "plots",
        "rules",
        "runner",
        "screen",
        "student",
        "times",
    ],
    submod_attrs={
        "helpers": [
            "drawing_model",
            "folder",
            "keep",
            "model_folder",
            "number",
            "pick",
            "resolve_profile",
            "results",
            "say",
            "table",
            "versions",
        ],
        "parameters": ["start"],
    },
)
