"""The study of what autoencoders lose, on spots in place of digits and lenses."""

from __future__ import annotations

import argparse
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from toys_autoencoder import NETWORK, blobs, saved
from toys_autoencoder import recipe as small_recipe
from toys_classifier import small_classifier

from lensdiff.errors import ParameterError
from lensdiff.networks import classifier
from lensdiff.networks.autoencoder import KLVAE
from lensdiff.scores.features import extractor
from lensdiff.scores.statistics import as_stored, statistics
from lensdiff.storage import read_json
from lensdiff.studies import autoencoders
from lensdiff.studies.autoencoders import VARIANTS, Bench, Variant

N = 24


@pytest.fixture(scope="module")
def bench(tmp_path_factory) -> Bench:
    """Spots, with a classifier of their sizes as judge and as extractor."""
    folder = tmp_path_factory.mktemp("judge") / "judge"
    judge = small_classifier(size=32, view="resize", classes=blobs().classes)
    classifier.save(folder, judge)
    net = extractor("lensnet", path=folder)
    test = blobs(2 * N, side=16)
    first = statistics(net, torch.from_numpy(test.pixels[:N]).split(8), N, "reference")
    return Bench(test, net, judge.eval(), None, first, N)


def pretend(back) -> SimpleNamespace:
    """An autoencoder whose latents are the images, and which gives back `back(images)`."""

    def decode(z: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        assert tuple(z.shape[2:]) == size
        return back(z)

    return SimpleNamespace(net=KLVAE(**NETWORK).eval(), encode=torch.from_numpy, decode=decode)


def test_a_perfect_autoencoder_is_at_the_floor(bench):
    row = bench.row(pretend(lambda z: 0.999999 * z))
    assert row["n"] == N and row["numbers"] == 16 * 16
    assert row["error"] < 1e-10
    assert row["distance"] == row["floor"] > 0
    assert row["excess_error"] < 1e-6, "they are pairs, and nothing is lost"
    assert row["accuracy"] == row["accuracy_after"] and row["accuracy_change_error"] == 0
    assert np.allclose(row["power"]["before"], row["power"]["after"], rtol=1e-4)
    assert np.allclose(row["power"]["lost"], 0)
    assert row["bits"] > 0


def test_noise_costs_what_is_known_of_it(bench):
    """White noise of variance s^2 has the power s^2 at every frequency."""
    generator = torch.Generator().manual_seed(0)

    def noisy(z: torch.Tensor) -> torch.Tensor:
        return z + 0.1 * torch.randn(z.shape, generator=generator)

    row = bench.row(pretend(noisy))
    assert row["rms"] == pytest.approx(0.1, rel=0.05)
    assert row["error"] == pytest.approx(0.01 / bench.images.var(), rel=0.1)
    assert np.mean(row["power"]["lost"]) == pytest.approx(0.01, rel=0.15)
    lost = bench.row(pretend(torch.rand_like))
    assert lost["distance"] > 1.5 * lost["floor"]


def test_a_row_of_a_codebook_has_its_bits(bench, tmp_path):
    made = saved(tmp_path / "vq", size=16, codes=16)
    row = bench.row(made)
    assert row["numbers"] == 3 * 4 * 4
    assert row["bits"] == pytest.approx(16 * np.log2(row["perplexity"]))
    assert 1 <= row["perplexity"] <= 16
    back = made.reconstruct(bench.images).numpy()
    squares = ((back - bench.images) ** 2).mean()
    assert row["error"] == pytest.approx(squares / bench.images.var(), rel=1e-4)
    answers = classifier.predict(bench.judge, as_stored(back)).argmax(1)
    assert "posterior_std" not in row
    assert row["accuracy_after"] == (answers == bench.test.labels[N:]).mean()


def test_a_kl_vae_is_asked_with_its_noise_too(bench, tmp_path):
    """Where the posterior's std is nearly 0, noise changes nothing; where it is 1, much."""
    made = saved(tmp_path / "kl", "KLVAE", size=16)
    last = made.net.encoder[-1]  # means and log variances, of 3 channels each
    errors = {}
    for name, log_variance in (("small", -20.0), ("unit", 0.0)):
        last.weight[3:] = 0
        last.bias[3:] = log_variance
        row = bench.row(made)
        assert row["posterior_std"] == pytest.approx(np.exp(log_variance / 2), rel=1e-3)
        errors[name] = row["error_sampled"], row["error"]
        mean = made.net.raw(torch.from_numpy(bench.images))[:, :3].detach()
        nats = 0.5 * (mean**2 + np.exp(log_variance) - 1 - log_variance)
        assert row["bits"] == pytest.approx(nats.sum().item() / N / np.log(2), rel=1e-4)
    assert errors["small"][0] == pytest.approx(errors["small"][1], rel=1e-3)
    assert errors["unit"][0] != pytest.approx(errors["unit"][1], rel=2e-3)
    assert errors["unit"][1] == pytest.approx(errors["small"][1])


def test_both_halves_of_the_test_digits_have_all_classes():
    found = Bench.of("digits", False)
    counts = [np.bincount(part, minlength=10) for part in np.split(found.test.labels, 2)]
    assert found.n == 500 and min(count.min() for count in counts) > 30
    assert found.images.shape == (500, 1, 28, 28)
    row = found.row(pretend(lambda z: 0.999999 * z))
    assert row["distance"] == row["floor"] < 5


def test_every_variant_has_the_fold_that_it_says():
    for variant in VARIANTS:
        plan = variant.recipe(5)
        net = plan.net()
        assert net.fold == variant.fold and type(net).__name__ == variant.kind
        assert plan.train.steps == 5 and plan.noiseless == variant.noiseless
        assert plan.network.get("kl") == variant.kl
        assert (variant.kl is None) == (variant.kind == "VQVAE")
        assert plan.pixels == autoencoders.PIXELS[variant.data]
    equal = {}  # numbers of an image, by data and kind
    for variant in VARIANTS:
        pixels = autoencoders.PIXELS[variant.data]
        numbers = np.prod(variant.recipe(5).net().grid(pixels, pixels))
        numbers *= variant.recipe(5).net().latent_channels
        equal.setdefault(variant.data, set()).add(int(numbers))
    assert equal == {"digits": {196}, "lens64": {1024}, "lens150": {1800}}


def test_the_command_computes_each_row_once(bench, tmp_path, monkeypatch):
    shipped = saved(tmp_path / "shipped-kl", "KLVAE", size=16)
    variants = (Variant("digits", "VQVAE", 2), Variant("digits", "KLVAE", 2, kl=1e-3))
    monkeypatch.setattr(autoencoders, "VARIANTS", variants)
    monkeypatch.setattr(autoencoders, "SHIPPED", (("digits", str(shipped.folder)),))
    monkeypatch.setattr(Bench, "of", classmethod(lambda cls, data, noiseless: bench))
    plans = {}

    def plan(variant: Variant, updates: int) -> object:
        plans[variant.kind] = small_recipe(variant.kind, steps=updates)
        return plans[variant.kind]

    monkeypatch.setattr(Variant, "recipe", plan)
    monkeypatch.setattr(type(small_recipe()), "images", lambda *_: blobs(side=16))
    parser = argparse.ArgumentParser()
    autoencoders.add_arguments(parser)
    args = parser.parse_args(["--updates", "6", "--out", str(tmp_path)])
    autoencoders.run(args)
    rows = read_json(tmp_path / autoencoders.FILE, "")["rows"]
    assert [row.get("kind", "shipped") for row in rows] == ["VQVAE", "KLVAE", "shipped"]
    assert all(row["distance"] > 0 for row in rows)
    assert rows[2]["sha256"] == shipped.sha256
    monkeypatch.setattr(autoencoders, "trained", None)  # it must not be called again
    autoencoders.run(args)
    assert read_json(tmp_path / autoencoders.FILE, "")["rows"] == rows
    with pytest.raises(ParameterError, match="--updates must be 1 or more"):
        autoencoders.run(parser.parse_args(["--updates", "0", "--out", str(tmp_path)]))
