"""Training: what a step is made of, what it yields, and that a killed run ends as one that never was."""
from __future__ import annotations

import math
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from safetensors.torch import load_file
from torch import Tensor, nn

from lensdiff.data.images import ImageSet, Stretch, symmetry
from lensdiff.diffusion.process import Denoiser, LogNormal, Uniform
from lensdiff.errors import CheckpointError, TrainingError
from lensdiff.lensing import parameters
from lensdiff.networks.unet import UNet
from lensdiff.training.diffusion import Batches, TrainConfig, _gradients, held_out_loss, train
from lensdiff.training.loop import Step, ema_average, learning_rate


@pytest.fixture(autouse=True)
def _cpu_but_for_gpu_tests(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU repeats itself to the bit, a GPU does not; and accelerate keeps a device for the whole process."""
    AcceleratorState._reset_state(reset_partial_state=True)
    if not request.node.get_closest_marker("gpu"):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def tiny(precision: str = "fp32", prediction: str = "edm", **arguments: object) -> Denoiser:
    torch.manual_seed(0)
    net = UNet(**{"channels": (16, 32), "blocks": 1, "attention_levels": (), "middle_attention": False, **arguments})
    return Denoiser(net, prediction, precision=precision)


def config(**changes: object) -> TrainConfig:
    return replace(TrainConfig(steps=3, batch=8, lr=1e-3, warmup_steps=1, decay_share=0.0, ema=0.9), **changes)


def weights(denoiser: Denoiser) -> Tensor:
    return torch.cat([p.detach().flatten() for p in denoiser.parameters()])


def run(denoiser: Denoiser, images: ImageSet, settings: TrainConfig, **arguments: object) -> list[Step]:
    return list(train(denoiser, images, settings, **arguments))


class Spy(nn.Module):
    """A network that answers its one weight times its input, and keeps what it saw."""

    null = UNet.null

    def __init__(self, classes: int = 0, conditions: int = 0):
        super().__init__()
        self.weight, self.classes, self.conditions = nn.Parameter(torch.ones(())), classes, conditions
        self.x, self.noise, self.labels = [], [], []

    def forward(self, x: Tensor, noise: Tensor, label: Tensor | None = None) -> Tensor:
        self.x.append(x.detach().clone())
        self.noise.append(noise.detach().clone())
        if label is not None:
            self.labels.append(label.clone())
        return self.weight * x


NO_NOISE = LogNormal(mean=-20.0, std=0.0)  # with x0 prediction, what the network sees is the image itself


# ---- symmetries -------------------------------------------------------------------------------------------------------------


def test_symmetry_is_the_dihedral_group() -> None:
    x = torch.arange(9.0).reshape(1, 1, 3, 3)
    ours = [symmetry(x, torch.tensor([k]))[0, 0].numpy() for k in range(8)]
    assert len({image.tobytes() for image in ours}) == 8
    plain = x[0, 0].numpy()
    expected = {np.ascontiguousarray(np.rot90(image, k)).tobytes() for image in (plain, plain.T) for k in range(4)}
    assert {np.ascontiguousarray(image).tobytes() for image in ours} == expected
    np.testing.assert_array_equal(ours[0], plain)
    np.testing.assert_array_equal(ours[1], np.rot90(plain))
    np.testing.assert_array_equal(ours[4], plain[:, ::-1])  # element 4 is the mirror that two symmetries mean


def test_symmetry_acts_on_each_image_by_its_own_element() -> None:
    x = torch.rand(5, 2, 4, 4)
    which = torch.tensor([0, 3, 4, 7, 2])
    for row, k in enumerate(which):
        torch.testing.assert_close(symmetry(x, which)[row], symmetry(x[row : row + 1], k[None])[0])


def seen_images(images: ImageSet, settings: TrainConfig) -> tuple[np.ndarray, list[list[int]]]:
    """The training rows, and for each image the network saw the (row, element) it equals."""
    rows, stretch = images.split()[0], Stretch.of(images.pixels)
    run(Denoiser(spy := Spy(), "x0"), images, replace(settings, sigmas=NO_NOISE), stretch=stretch)
    x = stretch(torch.from_numpy(images.pixels[rows]))
    known = torch.stack([symmetry(x, torch.full((len(x),), k)) for k in range(8)], 1).flatten(2).double()
    found = []
    for image in torch.cat(spy.x).flatten(1).double():
        distance = (known - image).abs().amax(-1)
        assert distance.min() < 1e-5  # the image itself, in one of its eight positions
        found.append(divmod(int(distance.argmin()), 8))
    return rows, [list(pair) for pair in found]


@pytest.mark.parametrize(
    ("symmetries", "augment", "elements"), [(8, True, set(range(8))), (2, True, {0, 4}), (1, True, {0}), (8, False, {0})]
)
def test_augmentation_is_by_the_data_sets_own_symmetries(lenses16: ImageSet, symmetries: int, augment: bool, elements: set[int]) -> None:
    images = replace(lenses16, symmetries=symmetries)
    rows, found = seen_images(images, config(steps=29, batch=4, augment=augment))  # two epochs of 58 images
    assert {element for _, element in found} == elements
    for epoch in (found[: len(rows)], found[len(rows) :]):
        assert sorted(row for row, _ in epoch) == list(range(len(rows)))  # each image once an epoch, and no held-out one
    assert [row for row, _ in found[:58]] != [row for row, _ in found[58:]]


# ---- what a batch is --------------------------------------------------------------------------------------------------------


def test_noise_levels_are_stratified_and_follow_their_distribution(lenses16: ImageSet) -> None:
    run(Denoiser(spy := Spy()), lenses16, config(steps=20, batch=16, sigmas=LogNormal(-0.5, 1.1)))
    for noise in spy.noise:
        u = torch.special.ndtr((4 * noise.double() + 0.5) / 1.1).sort().values * 16
        assert (u.floor() == torch.arange(16)).all() or ((u - u[0]).round() == torch.arange(16)).all()  # one level in each sixteenth
    run(Denoiser(spy := Spy()), lenses16, config(steps=5, batch=16, sigmas=Uniform("cosine", 10)))
    assert len(torch.cat(spy.noise).unique()) == 10


def test_a_batch_is_a_function_of_seed_and_update(lenses16: ImageSet) -> None:
    def batches(seed: int) -> Batches:
        settings, stretch = config(seed=seed, batch=32), Stretch.of(lenses16.pixels)
        return Batches(lenses16, lenses16.split()[0], stretch, settings, torch.device("cpu"), Spy(classes=3))

    forwards, other = batches(0), batches(1)
    drawn = [forwards(k) for k in range(4)]
    for k in (3, 1, 2, 0):  # asked for in any order, by one that has drawn no other
        for ours, theirs in zip(batches(0)(k), drawn[k], strict=True):
            assert torch.equal(ours, theirs)
    for first, second in [*pairwise(drawn), *((drawn[k], other(k)) for k in range(2))]:
        for ours, theirs in zip(first, second, strict=True):
            assert not torch.equal(ours, theirs)
        eps = torch.stack([first[3].flatten(), second[3].flatten()])
        assert float(torch.corrcoef(eps)[0, 1].abs()) < 5 / math.sqrt(eps.shape[1])
        assert float(eps.std()) == pytest.approx(1, abs=0.05)


def test_the_same_seed_gives_the_same_run_and_another_seed_another(lenses16: ImageSet) -> None:
    torch.manual_seed(5)
    first = run(tiny(), lenses16, config())
    torch.rand(7)  # the global generator plays no part
    again, other = run(tiny(), lenses16, config()), run(tiny(), lenses16, config(seed=1))
    assert [s.loss for s in first] == [s.loss for s in again]
    assert torch.equal(weights(first[-1].model), weights(again[-1].model))
    assert all(a.loss != b.loss for a, b in zip(first, other, strict=True))


def test_label_dropout(lenses16: ImageSet) -> None:
    run(Denoiser(spy := Spy(classes=3)), lenses16, config(steps=250, batch=16, label_dropout=0.2))
    labels = torch.cat(spy.labels)
    assert len(labels) == 4000 and set(labels.tolist()) == {0, 1, 2, 3}
    assert float((labels == 3).float().mean()) == pytest.approx(0.2, abs=5 * math.sqrt(0.2 * 0.8 / 4000))


def test_labels_are_those_of_the_images(lenses16: ImageSet) -> None:
    stretch = Stretch.of(lenses16.pixels)
    denoiser = Denoiser(spy := Spy(classes=3), "x0")
    run(denoiser, replace(lenses16, symmetries=1), config(label_dropout=0.0, sigmas=NO_NOISE), stretch=stretch)
    known = stretch(torch.from_numpy(np.array(lenses16.pixels))).flatten(1)
    for image, label in zip(torch.cat(spy.x), torch.cat(spy.labels), strict=True):
        assert lenses16.labels[int((known - image.flatten()).abs().amax(1).argmin())] == label


def test_a_conditional_network_needs_labels_it_knows(lenses16: ImageSet) -> None:
    with pytest.raises(TrainingError, match="no labels.*3 classes"):  # noqa: RUF043
        next(train(Denoiser(Spy(classes=3)), replace(lenses16, labels=None), config()))
    with pytest.raises(TrainingError, match="labels up to 2.*only 2 classes"):  # noqa: RUF043
        next(train(Denoiser(Spy(classes=2)), lenses16, config()))
    with pytest.raises(TrainingError, match="labels down to -1.*only 3 classes"):  # noqa: RUF043
        next(train(Denoiser(Spy(classes=3)), replace(lenses16, labels=lenses16.labels - 1), config()))
    with pytest.raises(TrainingError, match="60 labels for 64 images"):
        next(train(Denoiser(Spy(classes=3)), replace(lenses16, labels=lenses16.labels[:60]), config()))


def test_a_network_with_lens_parameters_needs_a_table_that_matches(lenses16: ImageSet) -> None:
    with pytest.raises(TrainingError, match="no labels.*lens parameters"):  # noqa: RUF043
        next(train(Denoiser(Spy(conditions=7)), replace(lenses16, truth=None), config()))
    with pytest.raises(TrainingError, match="60 labels for 64 images"):
        next(train(Denoiser(Spy(conditions=7)), replace(lenses16, truth=lenses16.truth[:60]), config()))
    with pytest.raises(TrainingError, match="conditioned on 3 numbers; lenses give 7"):
        next(train(Denoiser(Spy(conditions=3)), lenses16, config()))


def test_lens_parameters_turn_with_their_image_and_are_dropped(lenses16: ImageSet) -> None:
    stretch = Stretch.of(lenses16.pixels)
    settings = config(steps=60, batch=16, label_dropout=0.2, sigmas=NO_NOISE)
    run(Denoiser(spy := Spy(conditions=7), "x0"), lenses16, settings, stretch=stretch)
    images, labels = torch.cat(spy.x), torch.cat(spy.labels)
    dropped = labels.isnan().any(1)
    assert torch.equal(dropped, labels.isnan().all(1))
    assert float(dropped.float().mean()) == pytest.approx(0.2, abs=5 * math.sqrt(0.16 / len(dropped)))
    known = stretch(torch.from_numpy(lenses16.pixels[:]))
    turned = torch.cat([symmetry(known, np.full(len(known), k)) for k in range(8)]).flatten(1)
    nearest = torch.cdist(images[~dropped].flatten(1), turned).argmin(1)
    k, row = np.unravel_index(nearest.numpy(), (8, len(known)))
    values = parameters.encode(parameters.turned(parameters.of(lenses16.truth)[row], k))
    np.testing.assert_allclose(labels[~dropped].numpy(), values, atol=1e-5)
    assert len(set(k)) == 8


def test_an_unconditional_network_gets_no_labels(lenses16: ImageSet) -> None:
    run(Denoiser(spy := Spy()), lenses16, config())
    assert spy.labels == []


# ---- an update --------------------------------------------------------------------------------------------------------------


def learns(images: ImageSet, precision: str) -> None:
    """60 updates tell noise from lenses, on images never trained on."""
    settings = config(steps=60, batch=16, lr=3e-3, warmup_steps=5, decay_share=0.4, held_out_every=60, sigmas=LogNormal(0.5, 1.0))
    denoiser = tiny(precision, "eps", classes=3, middle_attention=True)
    before = held_out_loss(denoiser, images, images.split()[1], Stretch.of(images.pixels), settings)
    steps = run(denoiser, images, settings)
    assert [s.number for s in steps] == list(range(1, 61)) and steps[-1].images_seen == 960
    assert all(math.isfinite(s.loss) for s in steps) and weights(denoiser).isfinite().all()
    assert [s.held_out is None for s in steps] == [True] * 59 + [False]
    assert steps[-1].held_out < 0.6 * before
    assert np.mean([s.loss for s in steps[-10:]]) < 0.6 * np.mean([s.loss for s in steps[:3]])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_loss_falls(lenses16: ImageSet, precision: str) -> None:
    learns(lenses16, precision)


def gradient(denoiser: Denoiser, images: ImageSet, settings: TrainConfig) -> tuple[Tensor, float]:
    """The gradient of update 1 and its loss."""
    batches = Batches(images, images.split()[0], Stretch.of(images.pixels), settings, torch.device("cpu"), None)
    loss = _gradients(denoiser, batches(0), settings, Accelerator(cpu=True))
    return torch.cat([p.grad.flatten() for p in denoiser.parameters()]), loss


def test_accumulation_changes_nothing(lenses16: ImageSet) -> None:
    whole, whole_loss = gradient(tiny(), lenses16, config(accumulation=1))
    parts, parts_loss = gradient(tiny(), lenses16, config(accumulation=4))
    assert whole.norm() > 0.01
    assert (whole - parts).norm() < 1e-5 * whole.norm()
    assert parts_loss == pytest.approx(whole_loss, rel=1e-5)
    one, four = (run(tiny(channels=(32, 64)), lenses16, config(accumulation=n)) for n in (1, 4))
    assert [s.loss for s in four] == pytest.approx([s.loss for s in one], rel=1e-5)
    start, one, four = weights(tiny(channels=(32, 64))), weights(one[-1].model), weights(four[-1].model)
    assert (one - start).square().mean().sqrt() > 1e-4
    # root mean square, for where a gradient is nothing but rounding Adam still takes a whole step, in either direction
    assert (one - four).square().mean().sqrt() < 1e-5


def test_clip_bounds_the_gradient(lenses16: ImageSet) -> None:
    for clip in (1e-3, 1e3):
        (step,) = train(tiny(), lenses16, config(steps=1, clip=clip))
        norm = float(torch.cat([p.grad.flatten() for p in step.model.parameters()]).norm())
        assert norm == pytest.approx(1e-3, rel=1e-3) if clip == 1e-3 else norm > 0.01


def test_the_first_update_is_adams(lenses16: ImageSet) -> None:
    """One weight, whose gradient is not small: Adam's first step is lr times its sign."""
    spy = Spy()
    (step,) = train(Denoiser(spy), lenses16, config(steps=1, lr=0.01))
    assert float(spy.weight.detach()) == pytest.approx(1 - 0.01 * math.copysign(1, float(spy.weight.grad)), abs=1e-5)
    assert step.lr == 0.01


def test_ema_is_the_recursion(lenses16: ImageSet) -> None:
    average = None
    for n, step in enumerate(train(tiny(), lenses16, config(steps=6, ema=0.25, lr=1e-2))):
        now = weights(step.model).double()
        decay = min(0.25, (1 + n) / (10 + n))
        average = now if n == 0 else decay * average + (1 - decay) * now
        torch.testing.assert_close(weights(step.ema).double(), average, rtol=0, atol=1e-6)
    assert (now - average).abs().max() > 1e-4
    assert not step.ema.training and not any(p.requires_grad for p in step.ema.parameters())


def test_ema_decay_rises_to_its_limit() -> None:
    for n, decay in ((1, 2 / 11), (90, 91 / 100), (10**6, 0.999)):
        (x,) = state = [torch.ones(1)]
        ema_average(0.999)(state, [torch.zeros(1)], torch.tensor(n))
        assert float(x) == pytest.approx(decay, rel=1e-5)


def test_learning_rate() -> None:
    settings = TrainConfig(steps=1000, lr=2.0, warmup_steps=100, decay_share=0.4)
    rates = [learning_rate(settings, k, k / 1000) for k in range(1000)]
    assert rates[0] == pytest.approx(0.02) and rates[49] == pytest.approx(1.0)
    assert rates[99:601] == [2.0] * 502
    assert rates[800] == pytest.approx(1.0) and rates[999] == pytest.approx(0.005)
    assert all(a < b for a, b in pairwise(rates[:100])) and all(a > b for a, b in pairwise(rates[601:]))
    assert learning_rate(settings, 1000, 1.0) == 0
    assert learning_rate(replace(settings, decay_share=0.0, warmup_steps=0), 999, 0.999) == 2.0


def test_the_yielded_learning_rate_is_that_of_the_update(lenses16: ImageSet) -> None:
    settings = config(steps=10, warmup_steps=3, decay_share=0.5)
    assert [s.lr for s in run(tiny(), lenses16, settings)] == [learning_rate(settings, k, k / 10) for k in range(10)]


# ---- budgets and configuration ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": None}, "either steps or minutes"),
        ({"minutes": 1.0}, "either steps or minutes"),
        ({"steps": 0}, "must be positive"),
        ({"steps": -1}, "must be positive"),
        ({"steps": None, "minutes": 0.0}, "must be positive"),
        ({"batch": 0}, "multiple of accumulation"),
        ({"batch": 10, "accumulation": 4}, "multiple of accumulation"),
        ({"accumulation": 0}, "multiple of accumulation"),
        ({"criterion": "huber"}, "criterion must be one of"),
        ({"weight": "p2"}, "weight one of"),
    ],
)
def test_wrong_configurations(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(**changes)


def test_a_budget_in_minutes(lenses16: ImageSet) -> None:
    budget = 0.8
    began = time.monotonic()
    steps = run(Denoiser(Spy()), lenses16, config(steps=None, minutes=budget / 60, decay_share=0.5, held_out_every=10**6))
    took = time.monotonic() - began
    assert len(steps) > 20 and took < budget + 2
    assert steps[-2].seconds < budget <= steps[-1].seconds
    assert steps[0].lr == 1e-3 and steps[-1].lr < 2e-4
    assert [s.held_out is None for s in steps] == [True] * (len(steps) - 1) + [False]  # always at the end


def test_a_batch_that_cannot_be_shared(lenses16: ImageSet) -> None:
    with pytest.raises(TrainingError, match=r"batch = 8 .* 2 micro-batches x 3 processes"):
        next(train(tiny(), lenses16, config(accumulation=2), accelerator=SimpleNamespace(num_processes=3)))


# ---- what can go wrong ------------------------------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_names_its_update(lenses16: ImageSet) -> None:
    with pytest.raises(TrainingError, match=r"The loss is (nan|inf) at update 2\. Lower lr"):
        run(tiny(), lenses16, config(lr=1e30, steps=10))


def test_nan_in_the_data_stops_before_the_weights_are_touched(lenses16: ImageSet) -> None:
    pixels = np.array(lenses16.pixels)
    pixels[:, :, 3, 3] = np.nan
    denoiser = tiny()
    with pytest.raises(TrainingError, match="nan at update 1"):
        run(denoiser, replace(lenses16, pixels=pixels), config(), stretch=Stretch(0.1, 0.2))
    assert torch.equal(weights(denoiser), weights(tiny()))


def test_held_out_loss_is_repeatable(lenses16: ImageSet) -> None:
    settings, stretch, held = config(held_out_images=5), Stretch.of(lenses16.pixels), lenses16.split()[1]
    denoiser = Denoiser(spy := Spy(), "x0")
    losses = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        losses.append(held_out_loss(denoiser, lenses16, held, stretch, settings))
    assert losses[0] == losses[1] != held_out_loss(denoiser, lenses16, held, stretch, replace(settings, seed=1))
    assert spy.x[0].shape == (5, 1, 16, 16) and torch.equal(spy.x[0], spy.x[1])
    with torch.no_grad():
        spy.weight.fill_(0.0)
    x0 = stretch(torch.from_numpy(lenses16.pixels[held[:5]]))
    assert held_out_loss(denoiser, lenses16, held, stretch, settings) == pytest.approx(float((x0**2).mean()), rel=1e-5)


def test_breaking_out_leaves_a_usable_model(lenses16: ImageSet) -> None:
    denoiser = tiny()
    for step in train(denoiser, lenses16, config(steps=100)):
        if step.number == 2:
            break
    assert step.model is denoiser and torch.is_grad_enabled()
    with torch.no_grad():
        assert denoiser(torch.zeros(1, 1, 16, 16), 1.0).isfinite().all()
    assert [s.number for s in run(denoiser, lenses16, config(steps=2))] == [1, 2]  # and one that can be trained further


def test_another_precision_in_the_same_process(lenses16: ImageSet) -> None:
    """accelerate refuses a second precision in a process; a notebook may well train in two."""
    for precision in ("fp32", "fp16", "bf16"):
        (step,) = train(tiny(precision), lenses16, config(steps=1))
        assert math.isfinite(step.loss)


# ---- resume -----------------------------------------------------------------------------------------------------------------


def states(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_broken_off_run_resumes_as_if_it_never_was(lenses16: ImageSet, tmp_path: Path) -> None:
    settings = config(steps=9, batch=12, save_every=2, decay_share=0.4)  # an epoch ends within
    uninterrupted = run(tiny(classes=3), lenses16, settings)
    (tmp_path / "00000002.4242.part").mkdir()  # what an earlier kill in a save has left
    seen = []
    for last in (3, 6, 99):
        for step in train(tiny(classes=3), lenses16, settings, state=tmp_path):
            seen.append(step.number)
            if step.number == last:
                break
        assert len(states(tmp_path)) == 1
    assert seen == [1, 2, 3, 3, 4, 5, 6, 7, 8, 9]
    for ours, theirs in ((step.model, uninterrupted[-1].model), (step.ema, uninterrupted[-1].ema)):
        assert torch.equal(weights(ours), weights(theirs))
    assert (step.loss, step.lr) == (uninterrupted[-1].loss, uninterrupted[-1].lr)
    assert states(tmp_path) == ["00000009"]


def test_a_finished_run_yields_its_last_step_again(lenses16: ImageSet, tmp_path: Path) -> None:
    *_, last = train(tiny(), lenses16, config(), state=tmp_path)
    (again,) = train(tiny(), lenses16, config(), state=tmp_path)
    assert (again.number, again.images_seen, again.loss) == (last.number, last.images_seen, last.loss)
    assert torch.equal(weights(again.ema), weights(last.ema)) and torch.equal(weights(again.model), weights(last.model))


def test_seconds_go_on_after_a_resume(lenses16: ImageSet, tmp_path: Path) -> None:
    for step in train(Denoiser(Spy()), lenses16, config(steps=6, save_every=3), state=tmp_path):
        if step.number == 3:
            break
        time.sleep(0.2)
    time.sleep(0.3)
    resumed = next(train(Denoiser(Spy()), lenses16, config(steps=6, save_every=3), state=tmp_path))
    assert step.seconds <= resumed.seconds < step.seconds + 0.3


@pytest.mark.parametrize("damage", ["truncated", "flipped", "no weights", "no description"])
def test_a_damaged_state_is_named_and_refused(lenses16: ImageSet, tmp_path: Path, damage: str) -> None:
    run(tiny(), lenses16, config(), state=tmp_path)
    (tmp_path / "00000004.4242.part").mkdir()  # a save that was killed: it counts for nothing
    (tmp_path / "00000004.4242.part" / "state.safetensors").write_bytes(b"half")
    run(tiny(), lenses16, config(), state=tmp_path)
    file = tmp_path / "00000003" / "state.safetensors"
    content = bytearray(file.read_bytes())
    if damage == "truncated":
        file.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        content[-7] ^= 4
        file.write_bytes(content)
    elif damage == "no weights":
        file.unlink()
    else:
        (tmp_path / "00000003" / "state.json").unlink()
    with pytest.raises(CheckpointError, match=r"00000003.*Delete .*00000003 and start again"):
        next(train(tiny(), lenses16, config(), state=tmp_path))


def test_the_state_of_another_run_is_refused(lenses16: ImageSet, tmp_path: Path) -> None:
    run(tiny(), lenses16, config(), state=tmp_path)
    others = (
        (tiny(), lenses16, config(lr=2e-3)),
        (tiny(), lenses16, config(steps=4)),
        (tiny(), lenses16, config(sigmas=LogNormal(-1.0, 1.0))),
        (tiny(), replace(lenses16, fingerprint="other"), config()),
        (tiny(prediction="v"), lenses16, config()),
        (tiny("bf16"), lenses16, config()),
        (tiny(channels=(32, 32)), lenses16, config()),
    )
    for denoiser, images, settings in others:
        with pytest.raises(CheckpointError, match="of another run.*another folder"):  # noqa: RUF043
            next(train(denoiser, images, settings, state=tmp_path))
    rows = lenses16.split()
    with pytest.raises(CheckpointError, match="of another run"):
        next(train(tiny(), lenses16, config(), rows=(rows[0][1:], rows[1]), state=tmp_path))


# ---- kill -9 ----------------------------------------------------------------------------------------------------------------

KILLED_STEPS = 80
SCRIPT = f"""
import sys
import numpy as np
import torch
from safetensors.torch import save_file
from lensdiff.data import ImageSet
from lensdiff.diffusion import Denoiser
from lensdiff.networks import UNet
from lensdiff.train import TrainConfig, train

torch.manual_seed(0)
pixels = np.random.default_rng(0).random((40, 1, 16, 16)).astype(np.float32)
images = ImageSet("toy", pixels, "toy", labels=np.arange(40) % 3, symmetries=8)
denoiser = Denoiser(UNet((16, 32), blocks=1, attention_levels=(1,), classes=3), precision="bf16")
config = TrainConfig(steps={KILLED_STEPS}, batch=8, warmup_steps=10, save_every=2)
for step in train(denoiser, images, config, state=sys.argv[1]):
    pass
for name, part in (("model", step.model), ("ema", step.ema)):
    save_file({{key: value.contiguous() for key, value in part.state_dict().items()}}, f"{{sys.argv[1]}}/{{name}}.safetensors")
"""


def newest(state: Path) -> int:
    return max((int(path.name) for path in state.glob("[0-9]*") if path.name.isdigit()), default=0)


@pytest.mark.slow
def test_kill_9_at_any_moment_changes_no_bit(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1]), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    state, whole = tmp_path / "killed", tmp_path / "whole"

    def start(folder: Path) -> subprocess.Popen:
        return subprocess.Popen([sys.executable, str(script), str(folder)], env=environment)

    moment = random.Random()  # other moments on every run: a failure prints them
    told = []
    never_killed = start(whole)  # beside the others: each has one thread
    for first, last in ((2, 24), (32, 50)):
        process, after = start(state), moment.randint(first, last)
        try:
            deadline = time.monotonic() + 60
            while newest(state) < after:
                assert process.poll() is None and time.monotonic() < deadline, f"not killed in time: {told}, {after}"
                time.sleep(0.001)
            time.sleep(moment.uniform(0, 0.02))
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        told.append((after, newest(state)))
        assert process.returncode == -signal.SIGKILL and newest(state) < KILLED_STEPS, told
    assert start(state).wait(timeout=60) == never_killed.wait(timeout=60) == 0, told
    assert newest(state) == newest(whole) == KILLED_STEPS
    assert not list(state.glob("*.part"))
    for name in ("model", "ema"):
        ours, theirs = (load_file(folder / f"{name}.safetensors") for folder in (state, whole))
        assert ours.keys() == theirs.keys()
        for key, tensor in theirs.items():
            assert torch.equal(ours[key], tensor), (told, name, key)
    assert any(tensor.abs().max() > 0 for key, tensor in theirs.items() if "exit" in key)  # it did train


# ---- on a GPU ---------------------------------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_the_loss_falls_on_cuda(lenses16: ImageSet, precision: str) -> None:
    learns(lenses16, precision)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_run_on_cuda_resumes(lenses16: ImageSet, precision: str, tmp_path: Path) -> None:
    settings = config(steps=8, save_every=4)
    for step in train(tiny(precision), lenses16, settings, state=tmp_path):
        if step.number == 5:
            break
    steps = run(tiny(precision), lenses16, settings, state=tmp_path)
    assert [s.number for s in steps] == [5, 6, 7, 8]
    assert next(steps[-1].model.parameters()).device.type == "cuda"
    assert steps[0].loss == pytest.approx(step.loss, rel=1e-3)  # CUDA's sums are not repeatable to the bit
