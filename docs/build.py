"""Build the site: the series, the models, the API, for reading without a network.

    python docs/build.py [FOLDER]

The pages go into FOLDER (default: runs/site/html); open its index.html.
"""

from __future__ import annotations

import importlib
import pkgutil
import shutil
import sys
from pathlib import Path

from sphinx.cmd.build import main as sphinx

import lensdiff
from lensdiff.errors import LensdiffError
from lensdiff.notebook.runner import MATHJAX, TEMPLATE
from lensdiff.storage import root

COPIED = ("notebooks/*.ipynb", "figures/*", "figures/drawings/*", "data/checkpoints/**/README.md")
HIDDEN = ("lensdiff.__main__", "lensdiff.notebook.lessons", "lensdiff.studies")


def lay_out(source: Path) -> None:
    """Lay everything that Sphinx reads in `source`, as it lies in the repository."""
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(root() / "docs", source, ignore=shutil.ignore_patterns("build.py", "__pycache__"))
    for pattern in COPIED:
        for path in root().glob(pattern):
            if path.is_file():
                place = source / path.relative_to(root())
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, place)
    for page in source.glob("data/checkpoints/*/README.md"):  # reached from the gallery
        page.write_text(f"---\norphan: true\n---\n\n{page.read_text(encoding='utf-8')}", "utf-8")
    shutil.copyfile(root() / "pyproject.toml", source / "pyproject.toml")
    (source / "_static").mkdir(exist_ok=True)
    shutil.copyfile(TEMPLATE / MATHJAX, source / "_static" / MATHJAX)
    (source / "api.md").write_text(api(), encoding="utf-8")


def api() -> str:
    """The page of the package: every room and module, from its docstrings."""
    lines = ["# The package", "", lensdiff.__doc__.splitlines()[0], ""]
    for module in pkgutil.walk_packages(lensdiff.__path__, "lensdiff."):
        if not module.name.startswith(HIDDEN) and documented(module.name):
            lines += [f"## {module.name}", "", "```{eval-rst}"]
            lines += [f".. automodule:: {module.name}", "```", ""]
    return "\n".join(lines)


def documented(name: str) -> bool:
    """Whether a module has names of its own to show."""
    module = importlib.import_module(name)
    own = [value for value in vars(module).values() if getattr(value, "__module__", "") == name]
    return any(getattr(value, "__doc__", None) for value in own)


def build(out: Path) -> int:
    """Build the pages into `out`; a warning is a failure. Returns an exit status."""
    source = out.with_name("source")
    lay_out(source)
    return sphinx(["-q", "-W", "--keep-going", "-b", "html", str(source), str(out)])


if __name__ == "__main__":
    try:
        place = Path(sys.argv[1]) if len(sys.argv) > 1 else root() / "runs" / "site" / "html"
        status = build(place.resolve())
    except LensdiffError as error:
        sys.exit(str(error))
    if not status:
        print(f"Open {(place / 'index.html').resolve().as_uri()}")
    sys.exit(status)
