"""Training an autoencoder: its batches of images, its loss, and its codebook after each update."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from torch import Tensor, nn

from ..data.images import ELEMENTS, ImageSet, Shuffle, some_of, symmetry
from ..errors import TrainingError
from ..networks import latent
from ..networks.autoencoder import VQVAE, Autoencoder, code_use
from ..networks.latent import Latent
from ..runtime import best_precision, once, processor
from .checks import check_budget, check_finite, check_rows, check_settings
from .loop import Run, Settings, Step, Task, at_once
from .state import Curve, run_identity, turned, unshaped

MEASURED = 2_000  # training images whose latents decide mean and std
COLLAPSED = 0.02  # a codebook of less perplexity than this part of its codes


@dataclass(frozen=True)
class AutoencoderConfig:
    """Everything that decides the training of an autoencoder.

    One of `steps` and `minutes` is the budget; a step is one update. Raises ParameterError for
    values that can't be used.
    """

    steps: int | None = None
    minutes: float | None = None
    batch: int = 64  # images an update, over all micro-batches and processes
    accumulation: int = 1  # micro-batches an update
    lr: float = 1e-3
    warmup_steps: int = 50
    decay_share: float = 0.5  # of the budget, at its end, over which lr falls linearly to 0
    weight_decay: float = 0.0
    clip: float = 1.0  # largest norm of the gradient
    ema: float | None = 0.99
    augment: bool = True  # by the data set's own symmetries
    seed: int = 0
    held_out_every: int = 0  # updates between held-out scores; 0: at the end alone
    held_out_images: int = 256
    save_every: int = 500  # updates between saved states, or three minutes

    def __post_init__(self) -> None:
        check_budget(self)
        check_settings(self)

    def settings(self, precision: str) -> Settings:
        """What the loop needs of it."""
        fields = asdict(self)
        for name in ("augment", "held_out_images"):
            del fields[name]
        return Settings(**fields, betas=(0.9, 0.99), precision=precision)


def check_codebook(name: str, use: dict[str, float], codes: int, latents: int) -> None:
    """Raise TrainingError for a codebook of `codes` that has collapsed, from its `code_use`.

    That of so many `latents`, which can be in no more codes.
    """
    reach = min(codes, latents)
    if use["perplexity"] >= max(min(2.0, 0.6 * reach), COLLAPSED * reach):
        return
    taken = f"{round(use['codes_in_use'] * codes)} of {codes} codes are in use"
    raise TrainingError(
        f"{name}: the codebook has collapsed: {taken}, with a perplexity of "
        f"{use['perplexity']:.1f}. Lower lr, restart dead codes sooner (a smaller `decay`, "
        f"a larger `rare`), or take a KLVAE."
    )


class AutoencoderTask(Task):
    """An autoencoder to be trained on the squared error, in units of the pixels' variance."""

    def __init__(
        self,
        net: Autoencoder,
        images: ImageSet,
        config: AutoencoderConfig,
        rows: tuple[np.ndarray, np.ndarray],
    ):
        super().__init__(net)
        self.images = images
        self.config = config
        self.rows = rows
        self.shuffle = Shuffle(rows[0], config.batch, config.seed)
        self.update = 0

    def batch(self, update: int, device: torch.device) -> tuple[Tensor]:
        """(images (batch, C, H, W) in [0, 1],), each turned at random.

        Raises DataError for NaN.
        """
        self.update = update
        rows = self.shuffle(update)
        x = torch.from_numpy(np.array(self.images.pixels[rows], np.float32))
        check_finite(self.images.name, rows, x)
        if self.config.augment and self.images.symmetries > 1:
            rng = np.random.default_rng([self.config.seed, 1, update])
            x = symmetry(x, rng.choice(ELEMENTS[self.images.symmetries], len(rows)))
        return (x.to(device, memory_format=torch.channels_last),)

    def loss(self, module: nn.Module, part: tuple[Tensor]) -> Tensor:
        (images,) = part
        found, penalty, _ = module(images)
        return self._error(found, images).mean() + penalty.mean()

    def _error(self, found: Tensor, images: Tensor) -> Tensor:
        """Mean squared error of each image, over the pixels' variance (n,)."""
        return ((found - images) / self.saved.image_std).square().mean((1, 2, 3))

    def after_update(self, accelerator: Accelerator) -> None:
        """The codebook learns from all latents of the update, those of other processes too."""
        seen = getattr(self.saved, "seen", [])
        if not seen:
            return
        counts = accelerator.reduce(sum(one[0] for one in seen), "sum")
        sums = accelerator.reduce(sum(one[1] for one in seen), "sum")
        some = torch.cat([one[2] for one in seen])[:: len(seen)].contiguous()
        if accelerator.num_processes > 1:
            some = broadcast(some)
        seen.clear()
        if sums.isfinite().all():  # else fp16's gradient scaler leaves this update out
            self.saved.learn_codes(counts, sums, some)

    @torch.no_grad()
    def held_out(self, model: Autoencoder) -> dict[str, float]:
        """`loss`, `error` (over the variance), and the codes' use or the latents' divergence.

        Raises TrainingError for a codebook that has collapsed, once the warm-up is over.
        """
        rows = some_of(self.images, self.rows[1], self.config.held_out_images)
        model.eval()
        errors = []
        penalties = []
        logs = []
        size = at_once(self.config)
        for start in range(0, len(rows), size):
            part = np.array(self.images.pixels[rows[start : start + size]], np.float32)
            images = torch.from_numpy(part).to(model.mean.device)
            found, penalty, log = model(images)
            errors.append(self._error(found, images))
            penalties.append(penalty)
            logs.append(log)
        error = float(torch.cat(errors).mean())
        scores = {"loss": error + float(torch.cat(penalties).mean()), "error": error}
        if not isinstance(model, VQVAE):
            divergence = torch.cat([log["divergence"] for log in logs])
            return scores | {"divergence": float(divergence.mean())}
        counts = sum(log["counts"] for log in logs)
        use = code_use(counts)
        if self.update >= self.config.warmup_steps:
            check_codebook(self.images.name, use, len(model.codes), int(counts.sum()))
        return scores | use


def train_autoencoder(
    net: Autoencoder,
    images: ImageSet,
    config: AutoencoderConfig,
    rows: tuple[np.ndarray, np.ndarray] | None = None,
    state: Path | str | None = None,
    accelerator: Accelerator | None = None,
) -> Iterator[Step]:
    """Yield a `Step` after every update, until the budget is spent or the caller breaks.

    `rows` are the (train, held-out) indices, by default the set's own split; `state` is a folder to
    save in and to resume from, the codebook's averages included. Raises DataError for images
    smaller than the network's fold, TrainingError and CheckpointError as `loop.Run`.
    """
    net.grid(*images.pixels.shape[-2:])
    rows = rows or images.split()
    check_rows(rows, held_out=True)
    kept = {name: list(tensor.shape) for name, tensor in net.state_dict().items()}
    about = [type(net).__name__, kept, net.image_mean, net.image_std, net.precision]
    about = [repr(config), *about, images.fingerprint]
    more = unshaped(net) | turned(images, config.augment)
    identity = run_identity(about, rows[0], *([more] if more else []))
    task = AutoencoderTask(net, images, config, rows)
    run = Run(task, config.settings(net.precision), identity, accelerator)
    yield from run.steps(state)


@torch.no_grad()
def _measured(
    net: Autoencoder,
    images: ImageSet,
    config: AutoencoderConfig,
    rows: tuple[np.ndarray, np.ndarray],
) -> dict[str, float]:
    """Held-out scores; gives the network mean and std of the latents of training images.

    Raises TrainingError where the codebook has collapsed, or a channel says nothing.
    """
    task = AutoencoderTask(net, images, config, rows)
    task.update = config.warmup_steps
    scores = task.held_out(net)
    found = []
    few = rows[0][:: max(1, len(rows[0]) // MEASURED)]
    for start in range(0, len(few), 64):
        part = np.array(images.pixels[few[start : start + 64]], np.float32)
        found.append(net.central(net.raw(torch.from_numpy(part).to(net.mean.device))))
    net.measure(torch.cat(found))
    dead = (~(net.std > 1e-4)).nonzero().flatten().tolist()
    if dead:
        reason = f"{images.name}: channel {dead[0]} of the latents is the same for all images"
        raise TrainingError(f"{reason}. Lower lr, `kl` or `commitment`, or latent_channels.")
    return scores


def fit_autoencoder(
    net: Autoencoder,
    images: ImageSet,
    config: AutoencoderConfig,
    folder: Path | str,
    arguments: dict,
    rows: tuple[np.ndarray, np.ndarray] | None = None,
    state: Path | str | None = None,
    each: Callable[[Step], object] | None = None,
    **spec: object,
) -> Latent:
    """Train an autoencoder and save it in `folder`, with its curve; returns it as it was saved.

    `arguments` are those that `net` was made with, `spec` what else is to be kept; `each` is called
    after every update. Other arguments and errors as `train_autoencoder`; TrainingError where the
    codebook or a channel of the latents has collapsed, and then nothing is saved.
    """
    rows = rows or images.split()
    net.precision = best_precision()
    curve = Curve(state)
    steps = train_autoencoder(net, images, config, rows, state)
    for step in curve.watch(steps, config.steps, "training the autoencoder"):
        if each is not None:
            each(step)
    scores = _measured(step.ema, images, config, rows)
    about = {
        "curve": curve.rows,
        "scores": scores,
        "data": images.as_dict(),
        "images_seen": step.images_seen,
        "seconds": round(step.seconds),
        "machine": processor(),
    }
    size = images.pixels.shape[-2:]
    once(lambda: latent.save(folder, step.ema, arguments, size, **about, **spec))
    return latent.load(folder)
