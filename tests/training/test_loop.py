"""The loop: what an update is made of, what it yields, how the batch is shared, what it refuses."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import PartialState
from torch import Tensor, nn
from toys import perturb
from toys_training import Clock, Spy, config, run, tiny, weights

from lensdiff.data.images import ImageSet, Stretch
from lensdiff.diffusion.process import Denoiser
from lensdiff.errors import TrainingError
from lensdiff.training.diffusion import DiffusionTask, TrainConfig, train
from lensdiff.training.loop import Run, Settings, at_once, ema_average, learning_rate
from lensdiff.training.processes import accelerator_for


def run_of(denoiser: Denoiser, images: ImageSet, settings: TrainConfig) -> Run:
    """The loop over a denoiser on the CPU, before its first update."""
    stretch = Stretch.of(images.pixels)
    task = DiffusionTask(denoiser, images, settings, stretch, images.split())
    return Run(task, settings.settings(denoiser.precision), accelerator=Accelerator(cpu=True))


# ---- an update -----------------------------------------------------------------------------------


def gradient(denoiser: Denoiser, images: ImageSet, settings: TrainConfig) -> tuple[Tensor, float]:
    """The gradient of update 1 and its loss."""
    loop = run_of(denoiser, images, settings)
    loss = loop._gradients(loop.task.batch(0, torch.device("cpu")))
    return torch.cat([p.grad.flatten() for p in denoiser.parameters()]), loss


def test_accumulation_changes_nothing(lenses16: ImageSet) -> None:
    whole, whole_loss = gradient(tiny(), lenses16, config(accumulation=1))
    parts, parts_loss = gradient(tiny(), lenses16, config(accumulation=4))
    assert whole.norm() > 0.01
    assert (whole - parts).norm() < 1e-5 * whole.norm()
    assert parts_loss == pytest.approx(whole_loss, rel=1e-5)
    one, four = (run(tiny(channels=(32, 64)), lenses16, config(accumulation=n)) for n in (1, 4))
    assert [s.loss for s in four] == pytest.approx([s.loss for s in one], rel=1e-5)
    start = weights(tiny(channels=(32, 64)))
    after_one = weights(one[-1].model)
    after_four = weights(four[-1].model)
    assert (after_one - start).square().mean().sqrt() > 1e-4
    # root mean square, for where a gradient is nothing but rounding Adam still takes a whole step,
    # in either direction
    assert (after_one - after_four).square().mean().sqrt() < 1e-5


def test_clip_bounds_the_gradient(lenses16: ImageSet) -> None:
    for clip in (1e-3, 1e3):
        (step,) = train(tiny(), lenses16, config(steps=1, clip=clip))
        norm = float(torch.cat([p.grad.flatten() for p in step.model.parameters()]).norm())
        if clip == 1e-3:
            assert norm == pytest.approx(1e-3, rel=1e-3)
        else:
            assert norm > 0.01


def test_the_first_update_is_adams(lenses16: ImageSet) -> None:
    """One weight, whose gradient is not small: Adam's first step is lr times its sign."""
    spy = Spy()
    (step,) = train(Denoiser(spy), lenses16, config(steps=1, lr=0.01))
    expected = 1 - 0.01 * math.copysign(1, float(spy.weight.grad))
    assert float(spy.weight.detach()) == pytest.approx(expected, abs=1e-5)
    assert step.lr == 0.01


# ---- the average of the weights ------------------------------------------------------------------


def test_ema_is_the_recursion(lenses16: ImageSet) -> None:
    average = None
    for n, step in enumerate(train(tiny(), lenses16, config(steps=6, ema=0.25, lr=1e-2))):
        now = weights(step.model).double()
        decay = min(0.25, (1 + n) / (10 + n))
        average = now if n == 0 else decay * average + (1 - decay) * now
        torch.testing.assert_close(weights(step.ema).double(), average, rtol=0, atol=1e-6)
    assert (now - average).abs().max() > 1e-4
    assert not step.ema.training
    assert not any(p.requires_grad for p in step.ema.parameters())


def test_ema_decay_rises_to_its_limit() -> None:
    for n, decay in ((1, 2 / 11), (90, 91 / 100), (10**6, 0.999)):
        x = torch.ones(1)
        ema_average(0.999)([x], [torch.zeros(1)], torch.tensor(n))
        assert float(x) == pytest.approx(decay, rel=1e-5)


# ---- learning rate and budget --------------------------------------------------------------------


def test_learning_rate() -> None:
    settings = TrainConfig(steps=1000, lr=2.0, warmup_steps=100, decay_share=0.4)
    rates = [learning_rate(settings, k, k / 1000) for k in range(1000)]
    assert rates[0] == pytest.approx(0.02)
    assert rates[49] == pytest.approx(1.0)
    assert rates[99:601] == [2.0] * 502
    assert rates[800] == pytest.approx(1.0)
    assert rates[999] == pytest.approx(0.005)
    assert all(a < b for a, b in pairwise(rates[:100]))
    assert all(a > b for a, b in pairwise(rates[601:]))
    assert learning_rate(settings, 1000, 1.0) == 0
    flat = replace(settings, decay_share=0.0, warmup_steps=0)
    assert learning_rate(flat, 999, 0.999) == 2.0


def test_the_yielded_learning_rate_is_that_of_the_update(lenses16: ImageSet) -> None:
    settings = config(steps=10, warmup_steps=3, decay_share=0.5)
    expected = [learning_rate(settings, k, k / 10) for k in range(10)]
    assert [s.lr for s in run(tiny(), lenses16, settings)] == expected


def test_a_budget_in_minutes(lenses16: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    Clock(monkeypatch, each=0.0625)
    budget = 2.0
    settings = config(steps=None, minutes=budget / 60, decay_share=0.5, held_out_every=10**6)
    steps = run(Denoiser(Spy()), lenses16, settings)
    assert len(steps) == 32
    assert steps[-1].seconds == budget
    rates = [learning_rate(settings, k, k * 0.0625 / budget) for k in range(32)]
    assert [step.lr for step in steps] == pytest.approx(rates)
    assert rates[0] == 1e-3 and rates[-1] < 2e-4
    # always at the end
    assert [s.held_out is None for s in steps] == [True] * (len(steps) - 1) + [False]


# ---- shares of a batch ---------------------------------------------------------------------------


def test_a_batch_that_cannot_be_shared(lenses16: ImageSet) -> None:
    three = SimpleNamespace(num_processes=3)
    with pytest.raises(TrainingError, match=r"batch = 8 .* 2 micro-batches x 3 processes"):
        next(train(tiny(), lenses16, config(accumulation=2), accelerator=three))


def test_processes_and_micro_batches_share_a_batch_out(lenses16: ImageSet) -> None:
    """Each image goes to one of two processes, in one of two micro-batches; losses are means."""
    settings = config(accumulation=2, augment=False)
    parts = []
    gradients = []
    losses = []
    for index in range(2):
        spy = Spy()
        loop = run_of(Denoiser(spy), lenses16, settings)
        loop.accelerator = SimpleNamespace(
            num_processes=2,
            process_index=index,
            no_sync=lambda module: nullcontext(),
            backward=lambda loss: loss.backward(),
        )
        losses.append(loop._gradients(loop.task.batch(0, torch.device("cpu"))))
        gradients.append(float(spy.weight.grad))
        parts.append(spy.x)
    spy = Spy()
    loop = run_of(Denoiser(spy), lenses16, replace(settings, accumulation=1))
    loss = loop._gradients(loop.task.batch(0, torch.device("cpu")))
    (whole,) = spy.x
    in_order = [parts[process][micro] for micro in range(2) for process in range(2)]
    assert [len(part) for part in in_order] == [2] * 4
    assert torch.equal(torch.cat(in_order), whole)
    assert np.mean(losses) == pytest.approx(loss, rel=1e-5)
    assert np.mean(gradients) == pytest.approx(float(spy.weight.grad), rel=1e-5)


# ---- what can go wrong ---------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_names_its_update(lenses16: ImageSet) -> None:
    with pytest.raises(TrainingError, match=r"The loss is (nan|inf) at update 2\. Lower lr"):
        run(tiny(), lenses16, config(lr=1e30, steps=10))


def test_breaking_out_leaves_a_usable_model(lenses16: ImageSet) -> None:
    denoiser = tiny()
    for step in train(denoiser, lenses16, config(steps=100)):
        if step.number == 2:
            break
    assert step.model is denoiser
    assert torch.is_grad_enabled()
    with torch.no_grad():
        assert denoiser(torch.zeros(1, 1, 16, 16), 1.0).isfinite().all()
    # and one that can be trained further
    assert [s.number for s in run(denoiser, lenses16, config(steps=2))] == [1, 2]


def test_another_precision_in_the_same_process(lenses16: ImageSet) -> None:
    """accelerate refuses a second precision in a process; a notebook may well train in two."""
    for precision in ("fp32", "fp16", "bf16"):
        (step,) = train(tiny(precision), lenses16, config(steps=1))
        assert math.isfinite(step.loss)


def test_fp16_without_a_scaler_refuses_gradients_that_are_not_finite(
    lenses16: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A CPU has none, which would leave such an update out."""
    loop = run_of(tiny("fp16"), lenses16, config())
    assert loop.settings.precision == "fp16" and loop.accelerator.scaler is None
    monkeypatch.setattr(loop.accelerator, "clip_grad_norm_", lambda *_: torch.tensor(torch.inf))
    before = weights(loop.task.saved)
    with pytest.raises(TrainingError, match="gradients are not finite at update 1"):
        next(loop.steps())
    assert np.array_equal(before, weights(loop.task.saved))


def test_no_wrapper_stays_with_the_network(
    lenses16: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """accelerate's, for fp16 on a GPU, would cast whoever uses the network later."""

    def prepare(_self: object, module: nn.Module, optimizer: object) -> tuple:
        module.forward = lambda *_: pytest.fail("cast")
        return module, optimizer

    monkeypatch.setattr(Accelerator, "prepare", prepare)
    loop = run_of(tiny(), lenses16, config())
    assert "forward" not in loop.module.__dict__


def test_a_network_without_an_average_is_judged_without_dropout(lenses16: ImageSet) -> None:
    denoiser = tiny(dropout=0.5)
    perturb(denoiser.net)
    given = (lenses16, config(ema=None), Stretch.of(lenses16.pixels), lenses16.split())
    task = DiffusionTask(denoiser, *given)
    losses = [task.held_out(denoiser.train())["loss"] for _ in range(2)]
    assert losses[0] == losses[1]


def test_the_scale_of_fp16_is_saved_and_resumed(lenses16: ImageSet, tmp_path: Path) -> None:
    loops = [run_of(tiny(), lenses16, config()) for _ in range(2)]
    for loop, scale in zip(loops, (256.0, 2.0), strict=True):
        loop.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    loops[0].save(tmp_path, 1, 0.0, 0.5)
    loops[1].resume(tmp_path)
    assert loops[1].accelerator.scaler.get_scale() == 256.0
    loops[1].accelerator.scaler = None  # a CPU goes on with what a GPU began
    assert loops[1].resume(tmp_path) == (1, 0.0, 0.5)


def test_a_run_takes_the_device_of_today(monkeypatch: pytest.MonkeyPatch) -> None:
    """LENSDIFF_DEVICE may be set in a kernel that has trained on another."""
    accelerator_for("fp32")
    monkeypatch.setitem(PartialState._shared_state, "device", torch.device("cuda"))
    assert accelerator_for("fp32").device.type == "cpu"


def test_a_held_out_pass_takes_no_more_images_than_a_micro_batch(lenses16: ImageSet) -> None:
    spy = Spy()
    loop = run_of(Denoiser(spy), lenses16, config(batch=8, accumulation=4))
    loop.task.held_out(loop.task.saved)
    assert [len(x) for x in spy.x] == [2, 2, 2]
    assert at_once(config(batch=1_000)) == 64


def test_too_little_memory_for_the_held_out_pass_is_one_sentence(
    lenses16: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def short(*_: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(DiffusionTask, "held_out", short)
    with pytest.raises(TrainingError, match=r"memory of cpu is too small for 8 images\. Take a sm"):
        run(tiny(), lenses16, config(held_out_every=1))


def test_without_an_average_the_model_itself_is_held_out(lenses16: ImageSet) -> None:
    denoiser = tiny()
    loop = run_of(denoiser, lenses16, config())
    assert loop.ema is not denoiser
    plain = Run(loop.task, Settings(lr=1e-3, batch=8, steps=1), accelerator=loop.accelerator)
    (step,) = plain.steps()
    assert step.ema is step.model is denoiser
