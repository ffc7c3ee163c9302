"""Pages to look at: one HTML file each, with its pictures in it, for light and dark screens."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from ..storage import atomic
from .pictures import palette

DPI = 100
STYLE = """
:root { color-scheme: light dark; --ink: #1f2933; --pale: #667; --line: #cbd2d9; --ground: #fff; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e7eb; --pale: #9aa5b1; --line: #3e4c59; --ground: #14181d; }
}
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--ground);
  max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
figure { margin: 1rem 0; } figcaption { color: var(--pale); font-size: .9rem; }
img { max-width: 100%; height: auto; background: #fff; border-radius: .4rem; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: .95rem; }
th, td { text-align: left; padding: .25rem .8rem .25rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; overflow-wrap: anywhere; }
"""


def heading(text: str) -> str:
    """The title of a part."""
    return f"<h2>{escape(text)}</h2>"


def table(rows: Iterable[Sequence[object]]) -> str:
    """A table; the first cell of a row names it."""
    lines = []
    for first, *others in rows:
        cells = "".join(f"<td>{escape(str(cell))}</td>" for cell in others)
        lines.append(f'<th scope="row">{escape(str(first))}</th>{cells}')
    body = "\n".join(f"<tr>{line}</tr>" for line in lines)
    return f'<div class="wide"><table>\n{body}\n</table></div>'


def picture(figure: Figure, caption: str) -> str:
    """A figure, which is closed, with what it shows in words."""
    whole = io.BytesIO()
    figure.savefig(whole, dpi=DPI, format="png")
    plt.close(figure)
    data = base64.b64encode(palette(whole.getvalue())).decode()
    image = f'<img alt="{escape(caption)}" src="data:image/png;base64,{data}">'
    return f"<figure>{image}<figcaption>{escape(caption)}</figcaption></figure>"


def write(path: Path, title: str, parts: Iterable[str]) -> Path:
    """Write a page of these parts to `path`, whole or not at all."""
    body = "\n".join(parts)
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style></head>\n"
        f"<body>\n<h1>{escape(title)}</h1>\n{body}\n</body></html>\n"
    )
    with atomic(path) as part:
        part.write_text(page, encoding="utf-8")
    return path
