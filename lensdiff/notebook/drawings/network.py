"""Drawings of the network: the whole U-Net from a forward pass, its blocks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor, nn

from .style import BLUE, GREEN, GREY, GROUND, INK, ORANGE, PURPLE, SIZE, Canvas

COLORS = {"plain": GREY, "residual": BLUE, "attention": PURPLE, "side": ORANGE}
WORDS = {
    "plain": "3×3",
    "residual": "residual block",
    "attention": "with attention",
    "side": "halves or doubles the side",
}


@dataclass
class Map:
    """A feature map of a forward pass: (channels, side, side), and which earlier map it takes in.

    `kind` is a key of `WORDS`; `skip` is the index of the map that came over a skip, or None.
    """

    kind: str
    channels: int
    side: int
    skip: int | None = None


class _Watch:
    """Hooks on a `networks.unet.UNet` that note every feature map in the order of their making."""

    def __init__(self, net: nn.Module):
        self.maps: list[Map] = []
        self.kept: list[tuple[int, Tensor]] = []
        self.handles: list = []
        self._last(net.stem, "plain", keep=True)
        for layers in net.down:
            self._last(layers[-1], self._kind(layers), keep=True)
        self._last(net.middle[1], self._kind(net.middle[:2]))
        self._last(net.middle[2], "residual")
        for layers in net.up:
            self._last(layers[-1], self._kind(layers), takes=len(layers) == 2)
            if len(layers) == 2:
                self.handles.append(layers[0].register_forward_pre_hook(self._entered))
        self._last(net.exit, "plain")

    @staticmethod
    def _kind(layers: nn.ModuleList) -> str:
        if len(layers) == 1:
            return "side"
        return "residual" if isinstance(layers[1], nn.Identity) else "attention"

    def _last(self, module: nn.Module, kind: str, keep: bool = False, takes: bool = False) -> None:
        """Note the output of a module as a map, kept for a skip where the network keeps it."""

        def made(_module: nn.Module, _given: tuple, made: Tensor) -> None:
            if keep:
                self.kept.append((len(self.maps), made))
            skip = self.came if takes else None
            self.maps.append(Map(kind, made.shape[1], made.shape[-1], skip))

        self.handles.append(module.register_forward_hook(made))

    def _entered(self, _module: nn.Module, given: tuple) -> None:
        """Find, by its values, the newest kept map that a block of the way up takes in."""
        for place in reversed(range(len(self.kept))):
            index, kept = self.kept[place]
            tail = given[0][:, -kept.shape[1] :]
            if tail.shape == kept.shape and torch.equal(tail, kept):
                self.came = index
                del self.kept[place]
                return
        self.came = None


@torch.no_grad()
def maps(net: nn.Module, side: int = 64) -> list[Map]:
    """The feature maps of a `networks.unet.UNet` on one image of `side` pixels, as they are made.

    The forward pass is watched: shapes and skips are those that the network really has.
    """
    watch = _Watch(net)
    parameter = next(net.parameters())
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, net.image_channels, side, side, generator=generator).to(parameter)
    training = net.training
    try:
        net.eval()(x, torch.zeros(1).to(parameter))
    finally:
        net.train(training)
        for handle in watch.handles:
            handle.remove()
    return watch.maps


# ---- the U-Net -----------------------------------------------------------------------------------


def unet(net: nn.Module, side: int = 64) -> Figure:
    """A `networks.unet.UNet` as it is: every feature map of a forward pass, and every skip.

    A row has the maps of one side, a bar is as high as it has channels. Made from `maps`, so that
    it changes with the network (Ronneberger et al. 2015, figure 1).
    """
    found = maps(net, side)
    canvas = Canvas(max(8.0, 1.7 + 0.27 * len(found)), 3.9)
    sides = sorted({one.side for one in found}, reverse=True)
    step = (canvas.width - 1.7) / len(found)
    row = 2.75 / len(sides)
    most = max(one.channels for one in found)
    places = []
    for i, one in enumerate(found):
        x = 1.25 + step * (i + 0.5)
        y = 3.45 - row * (sides.index(one.side) + 1)
        height = 0.1 + 0.42 * row * one.channels / most
        places.append((x, y, height))
        width = 0.62 * step
        ground = {"facecolor": GROUND[COLORS[one.kind]], "edgecolor": COLORS[one.kind]}
        canvas.ax.add_patch(Rectangle((x - width / 2, y), width, height, linewidth=1.2, **ground))
    _skips(canvas, found, places, row)
    _flow(canvas, found, places, row)
    for level, one in enumerate(sides):
        canvas.text(0.7, 3.45 - row * (level + 0.83), f"{one} × {one}", fontsize=SIZE)
    image = f"image {net.image_channels} × {side} × {side}"
    folded = f", folded to {net.image_channels * net.unshuffle**2} × {sides[0]} × {sides[0]}"
    canvas.text(
        canvas.width / 2 + 0.4,
        3.58,
        image + (folded if net.unshuffle > 1 else "") + " and back",
        fontsize=10,
    )
    _key(canvas)
    return canvas.figure


def _skips(canvas: Canvas, found: list[Map], places: list[tuple], row: float) -> None:
    """Each skip as an arc from its map to the block that takes it in, the longest on top."""
    for side in {one.side for one in found}:
        arcs = [i for i, one in enumerate(found) if one.skip is not None and one.side == side]
        for nest, i in enumerate(arcs):
            x, y, height = places[i]
            start, _, first = places[found[i].skip]
            top = y + row * (0.5 + 0.4 * (nest + 1) / len(arcs))
            way = ([start, start, x, x], [y + first, top, top, y + height])
            canvas.ax.plot(*way, color=GREEN, linewidth=0.9, zorder=1)
            canvas.ax.plot(x, y + height + 0.03, "v", color=GREEN, markersize=4)


def _flow(canvas: Canvas, found: list[Map], places: list[tuple], row: float) -> None:
    """Channels beneath the bars where they change, and the way from one side to the next."""
    for i, (x, y, _) in enumerate(places):
        one = found[i]
        before = found[i - 1] if i else None
        if before is None or (before.channels, before.side) != (one.channels, one.side):
            canvas.text(x, y - 0.1, str(one.channels), fontsize=9)
        if before is not None and before.side != one.side:
            there = places[i - 1]
            start = (there[0], there[1] - 0.02)
            end = (x, y + places[i][2] + 0.03)
            if one.side > before.side:
                start = (there[0], there[1] + there[2] + 0.02)
                end = (x, y - 0.2)
            canvas.arrow(start, end, ORANGE, width=1.2)


def _key(canvas: Canvas) -> None:
    x = 0.55
    for kind, words in (*WORDS.items(), ("skip", "skip")):
        color = COLORS.get(kind, GREEN)
        canvas.ax.plot(x, 0.37, "_" if kind == "skip" else "s", color=color, markersize=8)
        canvas.text(x + 0.13, 0.37, words, INK, fontsize=9, ha="left")
        x += 0.42 + 0.083 * len(words)
