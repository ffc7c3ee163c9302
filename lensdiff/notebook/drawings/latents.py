"""A drawing of latent diffusion: its two stages, with the shipped models' own images."""

from __future__ import annotations

import numpy as np
import torch
from matplotlib.figure import Figure

from ...diffusion.sampling import draw, noise
from . import style
from .style import BLUE, GREEN, GREY, ORANGE, PURPLE, Canvas

SEED = 8
SHOWN = 4  # of the latents' channels


def two_stages(model: object) -> Figure:
    """Latent diffusion: an autoencoder learns first, then a denoiser learns its latents.

    Rombach et al. 2022, figure 3, without their attention to texts. `model` is a `Model` of the
    latents of noiseless lenses. Every picture is computed with it: a simulated lens, its latents
    and what the decoder makes of them; noise, and a lens that the model draws, with its latents.
    """
    canvas = Canvas(8.0, 4.5)
    lens = style.some_lenses(1, model.shape[-1])[0]
    latents = model.autoencoder.encode(torch.from_numpy(lens[None, None]))
    _first(canvas, model, lens, latents)
    canvas.ax.plot([0.35, 7.65], [2.3, 2.3], color="#cbd2d9", linewidth=0.8)
    _second(canvas, model)
    return canvas.figure


def _channels(canvas: Canvas, latents: np.ndarray, x: float, y: float, edge: str) -> None:
    """Four channels of latents (channels, h, w) in a square whose lower left corner is (x, y)."""
    scale = {"vmin": -3, "vmax": 3, "cmap": "RdBu_r"}
    for k, channel in enumerate(latents[:SHOWN]):
        canvas.picture(channel, x + 0.5 * (k % 2), y + 0.5 - 0.5 * (k // 2), 0.47, edge, **scale)


def _first(canvas: Canvas, model: object, lens: np.ndarray, latents: torch.Tensor) -> None:
    """Image, encoder, latents, decoder, image: trained on the squared error."""
    y = 2.82
    back = model.autoencoder.decode(latents)[0, 0].numpy()
    canvas.text(0.45, 4.12, "1  the autoencoder learns", GREEN, ha="left", fontsize=12)
    canvas.picture(lens**0.6, 0.55, y, 0.97, GREEN)
    canvas.arrow((1.56, y + 0.48), (1.83, y + 0.48))
    canvas.box(2.4, y + 0.48, "encoder", 1.1, 0.5, GREEN)
    canvas.arrow((2.97, y + 0.48), (3.24, y + 0.48))
    _channels(canvas, latents[0].numpy(), 3.3, y, PURPLE)
    canvas.arrow((4.33, y + 0.48), (4.6, y + 0.48))
    canvas.box(5.17, y + 0.48, "decoder", 1.1, 0.5, GREEN)
    canvas.arrow((5.74, y + 0.48), (6.3, y + 0.48))
    canvas.picture(back.clip(0) ** 0.6, 6.36, y, 0.97, GREEN)
    channels, height, width = model.denoised_shape
    side = model.shape[-1]
    canvas.text(1.03, y - 0.2, f"{side} × {side} pixels", GREY, fontsize=10)
    words = f"latents, {height} × {width} × {channels}\n({SHOWN} of {channels} shown)"
    canvas.text(3.79, y - 0.26, words, PURPLE, fontsize=9)
    canvas.text(6.84, y - 0.2, "as it comes back", GREY, fontsize=10)


def _second(canvas: Canvas, model: object) -> None:
    """Noise, denoiser, latents, the same decoder, and the telescope."""
    y = 0.72
    title = "2  a denoiser learns the latents, and draws"
    canvas.text(0.45, 2.1, title, BLUE, ha="left", fontsize=12)
    eps = noise([SEED], model.denoised_shape)[0].numpy()
    how = model.sampling
    levels = how.sigmas()
    device = next(model.denoiser.parameters()).device
    where = {"device": device, **how.options()}
    (x,) = draw(model.denoise(), model.denoised_shape, [SEED], levels, how.sampler, **where)
    light = model.images_of(x)
    drawn = model.stretch.inverse(x)[0].float().cpu().numpy()
    image = model.telescope.observe(light, [SEED])[0, 0].numpy()
    _channels(canvas, eps, 0.55, y, ORANGE)
    canvas.arrow((1.56, y + 0.48), (1.83, y + 0.48))
    canvas.box(2.4, y + 0.48, "denoiser\n" + r"$D(z, \sigma)$", 1.1, 0.72, BLUE)
    canvas.arrow((2.97, y + 0.48), (3.24, y + 0.48))
    _channels(canvas, drawn, 3.3, y, PURPLE)
    canvas.arrow((4.33, y + 0.48), (4.6, y + 0.48))
    canvas.box(5.17, y + 0.48, "the same\ndecoder", 1.1, 0.72, GREEN)
    canvas.arrow((5.74, y + 0.48), (6.3, y + 0.48))
    canvas.text(6.02, y + 0.72, "noise", GREY, fontsize=9)
    canvas.picture(image.clip(0) ** 0.6, 6.36, y, 0.97, BLUE)
    canvas.text(1.03, y - 0.2, "noise", ORANGE, fontsize=10)
    canvas.text(2.4, y - 0.2, f"{model.sampling.calls} times", BLUE, fontsize=10)
    canvas.text(3.79, y - 0.2, "latents", PURPLE, fontsize=10)
    canvas.text(6.84, y - 0.2, "as the telescope sees it", GREY, fontsize=10)
