"""Reflow: a model learns the lines from noise to its own images, and then needs fewer steps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from toys_autoencoder import DIFFUSION, blobs

from lensdiff.errors import CheckpointError, ParameterError, StorageError
from lensdiff.model import Model, Sampling, load
from lensdiff.training.fit import fit
from lensdiff.training.loop import Step
from lensdiff.training.reflow import PairBatches, pairs, reflow
from lensdiff.training.state import Curve

SAMPLING = Sampling(steps=8, high=20.0, low=0.05)
SIDE = 14


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> Model:
    plan = replace(DIFFUSION.scaled(steps=80, batch=16, lr=2e-3, held_out_every=0), name="teacher")
    plan = replace(plan, sampling=SAMPLING, prediction="edm")
    return fit(plan, blobs(), tmp_path_factory.mktemp("reflow") / "teacher")


def test_pairs_are_a_models_noise_and_its_images(teacher):
    eps, x0 = pairs(teacher, 5, seed=7, batch=2)
    assert eps.shape == x0.shape == (5, 1, SIDE, SIDE)
    drawn = teacher.draw(5, seed=7, sampling=replace(SAMPLING, clamp=False))
    images = torch.from_numpy(teacher.stretch.inverse(x0)).clamp(0, 1)
    torch.testing.assert_close(images, drawn, atol=1e-3, rtol=0)
    with pytest.raises(ParameterError, match="eta = 0"):
        pairs(teacher, 5, sampling=Sampling("ddim", 4, eta=1.0))


def test_a_pairs_line_ends_in_the_noise_that_it_began_with(teacher):
    eps, x0 = pairs(teacher, 6)
    images = blobs(6)
    config = replace(DIFFUSION.train, batch=6, augment=True)
    rows = np.arange(6)
    batches = PairBatches(x0, eps, 20.0, images, rows, teacher.stretch, config)
    found, sigma, noise, label = batches(3)
    order = batches.shuffle(3)
    assert torch.equal(found, torch.from_numpy(x0[order])) and label is None
    torch.testing.assert_close(found + 20.0 * noise, torch.from_numpy(20.0 * eps[order]))
    assert sigma.shape == (6,) and (sigma > 0).all()


def test_one_step_of_the_student_comes_nearer_to_the_teachers_images(teacher, tmp_path):
    config = replace(teacher_config(), steps=80)
    student = reflow(teacher, config, tmp_path / "student", n=96, sampling=SAMPLING, seed=100)
    seeds = {"n": 64, "seed": 5_000}
    goal = teacher.draw(**seeds)
    once = replace(SAMPLING, steps=1)
    apart = [
        float(((model.draw(**seeds, sampling=once) - goal) ** 2).mean())
        for model in (teacher, student)
    ]
    assert apart[1] < 0.75 * apart[0]
    again = load(tmp_path / "student")
    assert again.spec["stages"][-1]["sha256"] == teacher.spec["sha256"]
    assert again.spec["data"]["name"] == "pairs of teacher"


def teacher_config():
    return replace(DIFFUSION.train, batch=16, lr=1e-3, held_out_every=0)


def test_a_run_goes_on_from_its_state(teacher, tmp_path, monkeypatch):
    config = replace(teacher_config(), steps=4, save_every=2)
    whole = reflow(teacher, config, tmp_path / "whole", n=16)
    seen = []

    class Broken(Curve):
        def add(self, step: Step) -> None:
            seen.append(step.number)
            if seen == [1, 2, 3]:
                raise KeyboardInterrupt
            super().add(step)

    monkeypatch.setattr("lensdiff.training.reflow.Curve", Broken)
    with pytest.raises(KeyboardInterrupt):
        reflow(teacher, config, tmp_path / "again", n=16, state=tmp_path / "state")
    kept = (tmp_path / "state" / "pairs.npz").read_bytes()
    with pytest.raises(CheckpointError, match=r"pairs\.npz: these pairs are of another run"):
        reflow(teacher, config, tmp_path / "other", n=16, state=tmp_path / "state", seed=1)
    assert (tmp_path / "state" / "pairs.npz").read_bytes() == kept
    again = reflow(teacher, config, tmp_path / "again", n=16, state=tmp_path / "state")
    assert seen == [1, 2, 3, 3, 4], "it goes on behind the state of update 2"
    assert whole.spec["sha256"] == again.spec["sha256"]


def test_lines_begin_at_the_first_level_whatever_the_levels_are(teacher, tmp_path, monkeypatch):
    """A schedule's levels don't begin at `high`."""
    seen = []

    class Spy(PairBatches):
        def __init__(self, x0, eps, high, *rest, **more):
            seen.append(high)
            super().__init__(x0, eps, high, *rest, **more)

    monkeypatch.setattr("lensdiff.training.reflow.PairBatches", Spy)
    config = replace(teacher_config(), steps=1)
    for levels in ("log", "karras", "flow", "cosine"):
        sampling = replace(SAMPLING, steps=2, levels=levels)
        reflow(teacher, config, tmp_path / levels, n=16, sampling=sampling)
        assert seen[-1] == float(sampling.sigmas()[0])
    assert np.float32(seen[:3]).tolist() == [20.0] * 3 and seen[3] > 100


def test_what_can_not_end_well_is_refused_before_any_pair(teacher, tmp_path, monkeypatch):
    monkeypatch.setattr("lensdiff.training.reflow.pairs", None)
    looks = replace(teacher_config(), held_out_every=2)
    with pytest.raises(ParameterError, match="Set held_out_every=0"):
        reflow(teacher, looks, tmp_path / "student", n=16)
    with pytest.raises(ParameterError, match="outside of it"):
        reflow(teacher, teacher_config(), tmp_path / "s", n=16, state=tmp_path / "s" / "state")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").touch()
    with pytest.raises(StorageError, match="holds other things"):
        reflow(teacher, teacher_config(), tmp_path / "mine", n=16)


def test_one_process_of_several_saves(teacher, tmp_path, monkeypatch):
    monkeypatch.setattr("lensdiff.training.reflow.once", lambda work: None)
    with pytest.raises(CheckpointError, match="no such folder"):
        reflow(teacher, replace(teacher_config(), steps=1), tmp_path / "student", n=16)


def test_a_conditional_model_is_refused(tmp_path):
    network = {**DIFFUSION.network, "classes": 3}
    made = fit(replace(DIFFUSION, network=network), blobs(), tmp_path / "m")
    with pytest.raises(ParameterError, match="m is conditional"):
        reflow(made, teacher_config(), tmp_path / "student", n=8)
