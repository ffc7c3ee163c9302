"""Build the site: the series, the models, the API, for reading without a network.

    python docs/build.py [FOLDER]

The pages go into FOLDER (default: runs/site/html); open its index.html.
"""

from __future__ import annotations

import base64
import importlib
import json
import pkgutil
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import nbformat
import numpy as np
from matplotlib import colormaps
from onnx_export import exported
from sphinx.cmd.build import main as sphinx

import lensdiff
from lensdiff.errors import LensdiffError, StorageError
from lensdiff.notebook.files import read
from lensdiff.notebook.opening import BADGE, is_opening
from lensdiff.notebook.plots import CMAP
from lensdiff.notebook.runner import MATHJAX, TEMPLATE
from lensdiff.storage import root

COPIED = ("notebooks/*.ipynb", "figures/*", "figures/drawings/*", "data/README.md")
COPIED += ("data/checkpoints/**/README.md",)
RUNTIME = "onnxruntime-web@1.30.0"  # of the page that draws, from npm
HIDDEN = ("lensdiff.__main__", "lensdiff.notebook.lessons", "lensdiff.studies")


def lay_out(source: Path) -> None:
    """Lay everything that Sphinx reads in `source`, as it lies in the repository."""
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(
        root() / "docs", source, ignore=shutil.ignore_patterns("build.py", "__pycache__")
    )
    for page in source.glob("*.md"):  # in the repository they lie in a folder of their own
        page.write_text(page.read_text(encoding="utf-8").replace("](../", "]("), "utf-8")
    laid = {path.name for path in source.glob("*.md")}
    for pattern in COPIED:
        for path in root().glob(pattern):
            if path.is_file():
                place = source / path.relative_to(root())
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, place)
    for page in source.glob("notebooks/*.ipynb"):  # Colab has a button of its own here
        notebook = read(page)
        for cell in filter(is_opening, notebook.cells):
            cell.metadata["tags"] = [*cell.metadata["tags"], "remove-cell"]
        notebook.cells[0].source = BADGE.sub("", notebook.cells[0].source)
        for cell in notebook.cells:
            cell.source = to_top(cell.source, laid)
        page.write_text(nbformat.writes(notebook), encoding="utf-8")
    for page in (*source.glob("data/checkpoints/*/README.md"), source / "data" / "README.md"):
        text = to_top(page.read_text(encoding="utf-8"), laid)  # reached from the gallery, or a page
        page.write_text(f"---\norphan: true\n---\n\n{text}", "utf-8")
    gallery = source / "data" / "checkpoints" / "README.md"
    gallery.write_text(to_top(gallery.read_text(encoding="utf-8"), laid), "utf-8")
    shutil.copyfile(root() / "pyproject.toml", source / "pyproject.toml")
    (source / "_static").mkdir(exist_ok=True)
    shutil.copyfile(TEMPLATE / MATHJAX, source / "_static" / MATHJAX)
    drawing(source / "_static", source.with_name("npm"))
    (source / "api.md").write_text(api(), encoding="utf-8")


def to_top(text: str, pages: set[str]) -> str:
    """The links of a page to those of docs/, which lie at the top of the site."""
    for name in pages:
        text = text.replace(f"../docs/{name}", f"../{name}")
    return text


# ---- the page that draws -------------------------------------------------------------------------


def drawing(static: Path, work: Path) -> None:
    """Write what docs/draw.md loads: scripts with the network and its runtime in them.

    They hold files as base64, since a page that is opened from a folder may not read others.
    Raises StorageError where npm can't give the runtime.
    """
    dist = runtime(work)
    wasm = base64.b64encode((dist / "ort-wasm-simd-threaded.wasm").read_bytes()).decode()
    glue = (dist / "ort-wasm-simd-threaded.mjs").read_text(encoding="utf-8")
    script = f'const ORT_WASM = "{wasm}";\nconst ORT_GLUE = {json.dumps(glue)};\n'
    (static / "ort-wasm.js").write_text(script.replace("</script", "<\\/script"), "utf-8")
    shutil.copyfile(dist / "ort.wasm.min.js", static / "ort.min.js")
    (static / "lens64.js").write_text(f"const LENS64 = {json.dumps(network())};\n", "utf-8")


def network() -> dict:
    """lens64 as the page needs it: ONNX in base64, and all that sampling and showing take."""
    model = lensdiff.load("lens64", device="cpu", precision="fp32")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's exporter, about checks of shapes
        onnx = exported(model)
    colours = (255 * colormaps[CMAP](np.linspace(0, 1, 256))[:, :3]).round().astype(int)
    return {
        "onnx": base64.b64encode(onnx).decode(),
        "side": model.shape[-1],
        "levels": [model.sampling.high, model.sampling.low],
        "stretch": {"mean": model.stretch.mean, "std": model.stretch.std},
        "limits": list(model.stretch.limits),
        "colours": colours.tolist(),
    }


def runtime(work: Path) -> Path:
    """The folder of onnxruntime-web's files, which npm puts below `work` once."""
    name, version = RUNTIME.split("@")
    place = work / "node_modules" / name
    about = place / "package.json"
    if not about.exists() or json.loads(about.read_text())["version"] != version:
        words = ["npm", "install", "--silent", "--no-save", "--ignore-scripts", RUNTIME]
        try:
            work.mkdir(parents=True, exist_ok=True)
            subprocess.run([*words, "--prefix", str(work)], check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            cure = "Install Node.js, and see that npm can download; then run this again."
            raise StorageError(f"npm can't install {RUNTIME} ({error}). {cure}") from error
    return place / "dist"


# ---- the API -------------------------------------------------------------------------------------


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
    source = root() / "runs" / "site" / "source"
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
