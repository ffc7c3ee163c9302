"""How Sphinx makes the site; `docs/build.py` lays out what it reads, and calls it."""

import re
import tomllib
from pathlib import Path

HERE = Path(__file__).parent
PROJECT = tomllib.loads((HERE / "pyproject.toml").read_text())["project"]
SOURCE = PROJECT["urls"]["Repository"]

project = "lensdiff"
author = "the authors of lensdiff"
release = PROJECT["version"]
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.mathjax", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]

# ---- pages ---------------------------------------------------------------------------------------

nb_execution_mode = "off"
nb_merge_streams = True
nb_render_markdown_format = "myst"  # outputs have equations and links, too
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3
myst_heading_slug_func = "lensdiff.notebook.files.anchor"  # as Jupyter has it
suppress_warnings = ["myst.header", "mystnb.unknown_mime_type"]
mathjax_path = "mathjax.js"  # of the package, so that equations need no network
mathjax3_config = {"options": {"enableMenu": False}, "svg": {"fontCache": "global"}}

# ---- the API -------------------------------------------------------------------------------------

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
default_role = "code"
autodoc_default_options = {"members": True, "undoc-members": False}

# ---- looks ---------------------------------------------------------------------------------------

html_theme = "sphinx_book_theme"
html_title = "lensdiff"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = True
html_show_sourcelink = False
html_theme_options = {
    "repository_url": SOURCE,
    "repository_branch": f"v{release}",
    "use_repository_button": True,
    "use_download_button": True,
    "path_to_docs": "",
    "launch_buttons": {"colab_url": "https://colab.research.google.com"},
    "home_page_in_toc": True,
    "show_navbar_depth": 1,
}


def as_rst(app, what, name, obj, options, lines):
    """Docstrings are plain text with `code`: no star or bar of theirs means anything."""
    for i, line in enumerate(lines):
        parts = re.split(r"(`[^`]*`)", line)
        parts[::2] = [re.sub(r"([*|\\]|_\b)", r"\\\1", part) for part in parts[::2]]
        lines[i] = "".join(parts)


def setup(app):
    app.connect("autodoc-process-docstring", as_rst)
