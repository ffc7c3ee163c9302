"""The study of lenses in latents beside lenses in pixels, with small models of few lenses."""

from __future__ import annotations

import argparse
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from toys_autoencoder import DIFFUSION, recipe

from lensdiff.data.images import lenses, simulated
from lensdiff.errors import ParameterError
from lensdiff.lensing.survey import diverse
from lensdiff.model import Sampling, load
from lensdiff.storage import read_json
from lensdiff.studies import cost, latent_lenses, physics
from lensdiff.training.fit import fit

PIXELS = 48  # a fit bins them by three


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> SimpleNamespace:
    """A model of noiseless lenses of 48 pixels, one of their latents, and one of noisy ones."""
    root = tmp_path_factory.mktemp("lenses")
    quiet = simulated(diverse(PIXELS), 40, 1, noiseless=True)
    fit(recipe("KLVAE", steps=4), quiet, root / "ae")
    plan = replace(DIFFUSION, noiseless=True, pixels=PIXELS, sampling=Sampling(steps=3))
    fit(plan, quiet, root / "latents", autoencoder=root / "ae")
    fit(replace(plan, name="small-pixels"), quiet, root / "pixels")
    fit(replace(plan, noiseless=False), simulated(diverse(PIXELS), 40, 1), root / "noisy")
    return SimpleNamespace(root=root, latents=root / "latents", pixels=root / "pixels")


def command(out, *names: object, more: tuple[str, ...] = ()) -> list[dict]:
    parser = argparse.ArgumentParser()
    latent_lenses.add_arguments(parser)
    given = ["-n", "16", "--fits", "2", "--calls", "2", "3", "--out", str(out), *more]
    latent_lenses.run(parser.parse_args([*map(str, names), *given]))
    return read_json(out / latent_lenses.FILE, "")["rows"]


def test_both_models_get_cost_and_quality_once(models, tmp_path, monkeypatch):
    def few(split: str, pixels: int) -> object:
        return lenses(split, pixels, 64)

    monkeypatch.setattr(latent_lenses, "lenses", few)
    rows = command(tmp_path, models.latents, models.pixels)
    assert [row["role"] for row in rows] == ["cost", "quality", "quality"] * 2
    assert [row["name"] for row in rows] == ["latents"] * 3 + ["pixels"] * 3
    first, *mine = rows[:3]
    assert first["updates"] == DIFFUSION.train.steps and first["update_s"] > first["call_s"]
    assert [row["calls"] for row in mine] == [2, 3]
    for row in mine:
        assert row["n_generated"] == 16 and len(row["rms"]) == 2
        assert row["distance"] > row["floor"] > 0
        assert 0 <= row["with_a_defect"]["test"] <= 16
        assert row["scalars"]["flux_arcsec2"]["n"] == 16
    assert first["autoencoder_parameters"] > 0 and first["decode_s"] > 0
    assert rows[3]["autoencoder_parameters"] == 0 and rows[3]["decode_s"] == 0
    monkeypatch.setattr(latent_lenses, "quality", None)  # it must not be called again
    monkeypatch.setattr(latent_lenses, "cost", None)
    assert command(tmp_path, models.latents, models.pixels) == rows


def test_latents_take_the_memory_of_their_smaller_grid(models):
    """With one network, what autograd keeps goes with the places: pixels are sixteen times more."""
    latents = load(models.latents, device="cpu", precision="fp32")
    pixels = load(models.pixels, device="cpu", precision="fp32")
    assert latents.denoised_shape[1:] == (12, 12) and pixels.denoised_shape[1:] == (48, 48)
    ratio = cost.training_bytes(pixels) / cost.training_bytes(latents)
    assert 14 < ratio < 17
    assert not any(p.requires_grad for p in pixels.denoiser.parameters())


def test_test_lenses_have_no_distance_from_themselves():
    real = np.array(lenses("test", 64, 24).pixels)
    found = physics.physics(real, real, 4)
    assert all(row["w1"] == 0 and row["ks_p"] == 1 for row in found["scalars"].values())
    assert found["with_a_defect"]["generated"] == found["with_a_defect"]["test"]
    assert max(found["rms"]) < 0.1


def test_the_median_of_times_leaves_the_first_out(monkeypatch):
    clock = [0.0]
    durations = iter([100.0, 3.0, 1.0, 50.0])

    def work() -> None:
        clock[0] += next(durations)

    monkeypatch.setattr(cost.time, "perf_counter", lambda: clock[0])
    assert cost.seconds(work, 3) == 3.0


def test_models_that_do_not_suit_are_refused(models, tmp_path):
    with pytest.raises(ParameterError, match="noisy draws no noiseless lenses"):
        command(tmp_path, models.root / "noisy")
    with pytest.raises(ParameterError, match="--calls must be 2 or more"):
        command(tmp_path, models.pixels, more=("--calls", "1"))
    assert not (tmp_path / latent_lenses.FILE).exists()
