"""What a user would take instead: networks of other libraries, trained as their users train them.

Each has the widths of the best published FID, 32, 64, 64, 128, and the loss, optimiser and average
of its own documentation or trainer. Sides are padded to multiples of 8 where they must be. Images
are at hand: reading them is not part of it. `pip install lensdiff[benchmark]` brings the libraries.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data.images import ImageSet
from ..diffusion.process import Denoiser
from ..errors import ParameterError
from ..networks.unet import UNet
from ..runtime import best_device, best_precision
from ..training import recipes
from ..training.diffusion import TrainConfig, train
from ..training.loop import ema_average
from .peer_updates import BATCH, IMAGES, Contender, count, grid, layout, library, lower, updates

WIDTHS = (32, 64, 64, 128)
# As ours but without the folding stem, at the weights of denoising-diffusion-pytorch's
UNFOLDED = {"channels": (32, 48, 64, 96), "blocks": 2, "attention_levels": (3,), "unshuffle": 1}


# ---- ours ----------------------------------------------------------------------------------------


def random_images(side: int, n: int = IMAGES) -> ImageSet:
    """Random images at hand, as ours takes them."""
    pixels = np.random.default_rng(0).random((n, 1, side, side), np.float32)
    return ImageSet("random pixels", pixels, "random", symmetries=8)


def fold_of(side: int) -> int:
    """Pixels a side that ours folds into channels: 2, 4 and 5 of 64, 128 and 150."""
    return max(1, round(side / 32))


def ours(side: int, fast: bool = True, network: dict | None = None) -> Contender:
    """Our loop with all that belongs to it: batches from a set, flips and turns, the average.

    The network is that of `lens64` and `lens150`, which fold so many pixels that their grid inside
    is the same; or one of `network`'s arguments. `fast`: in the device's own precision.
    """
    standard = {**recipes.every()["lens64"].network, "unshuffle": fold_of(side)}
    net = UNet(**(network or standard))
    precision = best_precision() if fast else "fp32"
    denoiser = Denoiser(net, "edm", precision=precision)
    config = TrainConfig(steps=10**6, batch=BATCH)
    return Contender(count(net), train(denoiser, random_images(side), config))


def unfolded(side: int, fast: bool = True) -> Contender:
    """Ours without the folding stem, at the weights of the peers' network."""
    return ours(-(-side // 8) * 8, fast, UNFOLDED)


# ---- peers ---------------------------------------------------------------------------------------


def denoising_diffusion_pytorch(
    side: int, fast: bool = False, pixels: Tensor | None = None, fold: int = 1
) -> Contender:
    """Its own sigmoid schedule, x0, chosen here; Adam at 8e-5, EMA 0.995, as its `Trainer`."""
    theirs = library("denoising_diffusion_pytorch")
    side, channels = grid(side, fold)
    device = best_device()
    multipliers = tuple(width // WIDTHS[0] for width in WIDTHS)
    net = theirs.Unet(dim=WIDTHS[0], dim_mults=multipliers, channels=channels)
    process = theirs.GaussianDiffusion(
        net, image_size=side, objective="pred_x0", beta_schedule="sigmoid"
    ).to(device, memory_format=layout(fast))
    average = library("ema_pytorch").EMA(process, beta=0.995, update_every=10).to(device)
    optimizer = torch.optim.Adam(process.parameters(), 8e-5, betas=(0.9, 0.99))

    @torch.no_grad()
    def draw(n: int, calls: int, averaged: bool = True, sampler: str = "DDIM") -> Tensor:
        model = average.ema_model if averaged else process
        model.sampling_timesteps = calls
        with lower(fast):
            return model.ddim_sample((n, 1, side, side)).float().clamp(0, 1).cpu()

    given = side if pixels is None else pixels
    made = updates(process, process, given, optimizer, average.update, fast, fold)
    saved = {"net": process, "average": average, "optimizer": optimizer}
    return Contender(count(net), made, saved, draw, {"DDIM": 1})


SOLVERS = {  # of diffusers; DDIM steps by 1,000 over the calls, whatever its times are
    "DPM-Solver++": ("DPMSolverMultistepScheduler", "linspace"),
    "UniPC": ("UniPCMultistepScheduler", "linspace"),
    "DDIM": ("DDIMScheduler", "trailing"),
}


@torch.no_grad()
def _draw_by_solver(
    net: nn.Module,
    average: object,
    schedule: object,
    fast: bool,
    n: int,
    calls: int,
    averaged: bool = True,
    sampler: str = "DPM-Solver++",
) -> Tensor:
    """Images by one of diffusers' solvers, its times spaced as each steps from one to the next."""
    name, spacing = SOLVERS[sampler]
    kind = getattr(library("diffusers"), name)
    solver = kind.from_config(schedule.config, timestep_spacing=spacing)
    solver.set_timesteps(calls)
    average.store(net.parameters())
    if averaged:
        average.copy_to(net.parameters())
    x = torch.randn(n, 1, net.config.sample_size, net.config.sample_size, device=net.device)
    for t in solver.timesteps:
        with lower(fast):
            noise = net(x, t).sample
        x = solver.step(noise.float(), t, x).prev_sample
    average.restore(net.parameters())
    return ((x + 1) / 2).clamp(0, 1).cpu()


def diffusers(
    side: int, fast: bool = False, pixels: Tensor | None = None, fold: int = 1
) -> Contender:
    """`UNet2DModel`: noise predicted, AdamW at 1e-4 as in its guide, and its `EMAModel`.

    The guide's rate rises and falls, over a length that is known beforehand; here it is constant.
    """
    theirs = library("diffusers")
    side, channels = grid(side, fold)
    attended = ("DownBlock2D",) * 3 + ("AttnDownBlock2D",)
    net = theirs.UNet2DModel(
        sample_size=side,
        in_channels=channels,
        out_channels=channels,
        block_out_channels=WIDTHS,
        down_block_types=attended,
        up_block_types=tuple(name.replace("Down", "Up") for name in reversed(attended)),
    ).to(best_device(), memory_format=layout(fast))
    schedule = theirs.DDPMScheduler(1000)
    average = library("diffusers.training_utils").EMAModel(net.parameters())

    def loss(x: Tensor) -> Tensor:
        x = 2 * x - 1
        noise = torch.randn_like(x)
        t = torch.randint(1000, (len(x),), device=x.device)
        return F.mse_loss(net(schedule.add_noise(x, noise, t), t).sample, noise)

    optimizer = torch.optim.AdamW(net.parameters(), 1e-4)

    draw = functools.partial(_draw_by_solver, net, average, schedule, fast)
    given = side if pixels is None else pixels
    made = updates(net, loss, given, optimizer, lambda: average.step(net.parameters()), fast, fold)
    saved = {"net": net, "average": average, "optimizer": optimizer}
    return Contender(count(net), made, saved, draw, dict.fromkeys(SOLVERS, 1))


# Of azula, and the calls of a step: DDIM, Heun's, and multi-step ones with a guess of the image, of
# the noise, of both, and of the velocity
AZULA_SAMPLERS = {"DDIM": 1, "Heun": 2, "xEAB": 1, "zEAB": 1, "REAB": 1, "vAB": 1}


class _Azula(nn.Module):
    """azula's U-Net, told the time through its own sines, as its tutorials build backbones."""

    def __init__(self, channels: int, width: int = 128):
        super().__init__()
        layers = library("azula.nn.layers")
        self.time = nn.Sequential(layers.SineEncoding(width), nn.Linear(width, width), nn.SiLU())
        blocks = {"hid_channels": WIDTHS, "hid_blocks": (2,) * 4, "norm": "group"}
        self.net = library("azula.nn.unet").UNet(channels, channels, mod_features=width, **blocks)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.net(x, self.time(t))


def azula(side: int, fast: bool = False, pixels: Tensor | None = None, fold: int = 1) -> Contender:
    """azula's U-Net, with group norms as the others, in its `KarrasDenoiser`.

    Adam at 1e-4 and an average of 0.999 as in its tutorial on images, but one that begins short, as
    ours does, since runs are short here. Where only the time of an update is asked for, on random
    images, there is no average.
    """
    side, channels = grid(side, fold)
    schedule = library("azula.noise").VPSchedule()
    denoiser = library("azula.denoise").KarrasDenoiser(_Azula(channels), schedule)
    denoiser.to(best_device(), memory_format=layout(fast))
    optimizer = torch.optim.Adam(denoiser.parameters(), 1e-4)
    average = torch.optim.swa_utils.AveragedModel(denoiser, multi_avg_fn=ema_average(0.999))

    def loss(x: Tensor) -> Tensor:
        return denoiser.loss(2 * x - 1, torch.rand(len(x), device=x.device))

    @torch.no_grad()
    def draw(n: int, calls: int, averaged: bool = True, sampler: str = "DDIM") -> Tensor:
        kind = getattr(library("azula.sample"), f"{sampler}Sampler")
        steps = max(1, calls // AZULA_SAMPLERS[sampler])
        solver = kind(average.module if averaged else denoiser, steps=steps, silent=True)
        x = solver.init((n, 1, side, side), device=best_device())
        with lower(fast):
            x = solver(x)
        return ((x.float() + 1) / 2).clamp(0, 1).cpu()

    given = side if pixels is None else pixels

    def keep() -> None:
        if pixels is not None:
            average.update_parameters(denoiser)

    made = updates(denoiser, loss, given, optimizer, keep, fast, fold)
    saved = {"net": denoiser, "average": average, "optimizer": optimizer}
    return Contender(count(denoiser), made, saved, draw, AZULA_SAMPLERS)


BUILDERS = {
    "denoising-diffusion-pytorch": denoising_diffusion_pytorch,
    "diffusers": diffusers,
    "azula": azula,
}
CONTENDERS: dict[str, tuple[Callable[..., Contender], bool]] = {  # and whether `fast`
    "ours": (ours, True),
    "ours, fp32": (ours, False),
    "ours without folding": (unfolded, True),
    "denoising-diffusion-pytorch": (denoising_diffusion_pytorch, False),
    "denoising-diffusion-pytorch, bf16": (denoising_diffusion_pytorch, True),
    "diffusers": (diffusers, False),
    "diffusers, bf16": (diffusers, True),
    "azula": (azula, False),
    "azula, bf16": (azula, True),
}


def contender(name: str, side: int) -> Contender:
    """One of `CONTENDERS`, for images of `side` pixels, each time with the same first weights.

    Raises ParameterError for another name, or where its library is missing.
    """
    if name not in CONTENDERS:
        raise ParameterError(f"There is no contender {name!r}; there are {', '.join(CONTENDERS)}.")
    build, fast = CONTENDERS[name]
    torch.manual_seed(0)
    return build(side, fast)


def folded(name: str, side: int) -> Contender:
    """A peer in the device's own precision, on images folded as ours folds them; it isn't drawn."""
    torch.manual_seed(0)
    return replace(BUILDERS[name](side, True, fold=fold_of(side)), draw=None)
