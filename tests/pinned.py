"""What is pinned: `python tests/pinned.py NAME` prints what a pin is now.

Each is computed here, in a process of its own that `test_pinned` holds to AVX2 and one thread.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch


def sha256(*arrays: np.ndarray | torch.Tensor) -> str:
    """SHA-256 of the bytes of arrays, each in C order."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(np.asarray(array)).tobytes())
    return digest.hexdigest()


def sha256_of_weights(module: torch.nn.Module) -> str:
    return sha256(*(tensor.detach().contiguous() for tensor in module.state_dict().values()))


# ---- what is pinned ------------------------------------------------------------------------------


def small_lenses(noiseless: bool = False):
    from lensdiff.data.images import simulated
    from lensdiff.lensing.survey import diverse

    cache = Path(tempfile.mkdtemp())
    return simulated(diverse(16), 48, seed=1, cache=cache, noiseless=noiseless)


def trained_denoiser(accumulation: int = 1, **network) -> dict:
    from lensdiff.diffusion.process import Denoiser
    from lensdiff.networks.unet import UNet
    from lensdiff.training.diffusion import TrainConfig, train

    torch.manual_seed(0)
    net = UNet(channels=(16, 32), blocks=1, attention_levels=(1,), dropout=0.1, **network)
    config = TrainConfig(
        steps=3,
        batch=8,
        lr=1e-3,
        warmup_steps=1,
        ema=0.9,
        held_out_every=3,
        accumulation=accumulation,
    )
    *_, step = train(Denoiser(net), small_lenses(), config)
    return {
        "model": sha256_of_weights(step.model),
        "ema": sha256_of_weights(step.ema),
        "held_out": float(step.held_out),
    }


def training_unconditional() -> dict:
    return trained_denoiser(accumulation=2)


def training_classes() -> dict:
    return trained_denoiser(classes=3)


def training_numbers() -> dict:
    from lensdiff.lensing.parameters import SPINS

    return trained_denoiser(conditions=7, spins=SPINS)


def training_classifier() -> dict:
    from lensdiff.networks.classifier import LensClassifier
    from lensdiff.training.classifier import ClassifierConfig, train_classifier

    torch.manual_seed(0)
    model = LensClassifier(size=32)
    config = ClassifierConfig(steps=3, frozen_steps=3, batch=6, warmup_steps=1, held_out_every=6)
    *_, step = train_classifier(model, small_lenses(), config)
    return {"model": sha256_of_weights(model), "held_out": [step.held_out, step.scores["accuracy"]]}


def recipe_to_checkpoint() -> dict:
    from lensdiff.training import recipes
    from lensdiff.training.diffusion import TrainConfig
    from lensdiff.training.fit import fit

    train = TrainConfig(steps=3, batch=8, warmup_steps=1, held_out_every=2)
    plan = replace(recipes.TINY, train=train, noiseless=True)
    with tempfile.TemporaryDirectory() as folder:
        made = fit(
            replace(plan, network={**plan.network, "unshuffle": 2}),
            small_lenses(noiseless=True),
            Path(folder) / "model",
        )
        spec = {key: made.spec[key] for key in ("sha256", "recipe", "curve", "telescope", "data")}
    for row in spec["curve"]:
        row.pop("seconds")
    return {"sha256": spec.pop("sha256"), "spec": sha256_of_json(spec)}


def sha256_of_json(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def drawn(name: str, asked: object = None, guidance: float = 1.0) -> dict:
    from lensdiff.model import load

    model = load(name, device="cpu", precision="fp32")
    label = None if asked is None else model.labels(asked)
    images = torch.cat(list(model.generate(range(4), label=label, guidance=guidance)))
    return {"images": sha256(images), "pixels": [round(float(x), 3) for x in images[:, 0, 30, 30]]}


def drawn_lens64() -> dict:
    return drawn("lens64")


def drawn_lens150() -> dict:
    return drawn("lens150")


def drawn_classes64() -> dict:
    return drawn("classes64", ["no_sub", "cdm", "axion", 2], 2.5)


def drawn_parameters64() -> dict:
    row = [1.4, 0.1, 0.1, 0.1, -0.2, 0.0, 0.02]
    return drawn("parameters64", np.array([row] * 4), 2.0)


def logits(name: str, survey) -> dict:
    from lensdiff.lensing.population import sample_params
    from lensdiff.lensing.simulate import simulate
    from lensdiff.lensing.telescope import min_max
    from lensdiff.networks.classifier import load, predict
    from lensdiff.storage import shipped

    params = sample_params(4, "mixed", 7, survey)
    pixels = min_max(next(iter(simulate(params, survey, 7))))[:, None]
    model = load(shipped(name), device="cpu")
    return {
        "logits": sha256(predict(model, pixels)),
        "features": sha256(predict(model, pixels, features=True)),
    }


def logits_lensnet() -> dict:
    from lensdiff.lensing.survey import model_i

    return logits("lensnet", model_i())


def logits_judge64() -> dict:
    from lensdiff.lensing.survey import diverse

    return logits("judge64", diverse(64))


def simulated_pixels() -> dict:
    from lensdiff.lensing.population import sample_params
    from lensdiff.lensing.simulate import observe, render
    from lensdiff.lensing.survey import diverse, model_i

    found = {}
    for survey in (diverse(32), model_i(32)):
        params = sample_params(6, "mixed", 5, survey)
        light = render(params, survey)
        found[survey.name] = sha256(params, light, observe(light, params, survey, 5))
    return found


def measured_images() -> dict:
    from lensdiff.lensing import measure
    from lensdiff.lensing.survey import diverse

    pixels = np.asarray(small_lenses().pixels[:12])
    scale = diverse(16).pixel_arcsec
    return {"measured": sha256(*measure.measure(pixels, scale).values())}


def fingerprints() -> dict:
    """Fingerprints of the default sets, without simulating any: they are of descriptions."""
    from unittest import mock

    from lensdiff.data import images
    from lensdiff.storage import fingerprint_of
    from lensdiff.training import recipes

    seen = {}

    def caught(name, description, shape, batches, cache, **arrays):
        fingerprint = fingerprint_of(description)
        seen[f"{name}, {shape[0]}"] = fingerprint
        return Path(), fingerprint, np.zeros((0, 1, 8, 8))

    with mock.patch.object(images, "cached", caught):
        for split in ("train", "test"):
            for pixels in (64, 150):
                images.lenses(split, pixels)
                images.lenses(split, pixels, noiseless=True)
        for recipe in (recipes.LENSNET, recipes.JUDGE64):
            recipe.images("train")
            recipe.images("test")
    return seen


def stored_features() -> dict:
    from lensdiff.model import load
    from lensdiff.scores.card import features_key, stored_features
    from lensdiff.scores.features import extractor

    found = {}
    for name in ("lens64", "lens150"):
        model = load(name)
        net = extractor("efficientnet")
        key = features_key(model, net, model.sampling)
        found[name] = sha256(stored_features(model.folder, key).rows)
    return found


def scores() -> dict:
    from lensdiff.scores.distances import frechet, frechet_error, kid, precision_recall
    from lensdiff.scores.statistics import Statistics

    rng = np.random.default_rng(0)
    rows = rng.normal(size=(2, 64, 12)).astype(np.float32)
    a, b = (Statistics.of(part) for part in rows)
    return {
        "frechet": frechet(a, b),
        "error": frechet_error(a, b),
        "kid": list(kid(a, b)),
        "precision_recall": list(precision_recall(*rows)),
    }


def extracted_features() -> dict:
    from lensdiff.scores.features import extractor
    from lensdiff.scores.statistics import to_uint8
    from lensdiff.storage import shipped

    images = to_uint8(small_lenses().pixels[:4])
    nets = [extractor("efficientnet"), extractor("lensnet", path=shipped("judge64"))]
    return {net.name: sha256(net(images).detach()) for net in nets}


def recipes_on_disk() -> dict:
    from lensdiff.training import recipes

    return {name: sha256_of_json(recipe.as_dict()) for name, recipe in recipes.RECIPES.items()}


COMPUTED = {
    one.__name__: one
    for one in (
        training_unconditional,
        training_classes,
        training_numbers,
        training_classifier,
        recipe_to_checkpoint,
        drawn_lens64,
        drawn_lens150,
        drawn_classes64,
        drawn_parameters64,
        logits_lensnet,
        logits_judge64,
        simulated_pixels,
        measured_images,
        fingerprints,
        stored_features,
        scores,
        extracted_features,
        recipes_on_disk,
    )
}


if __name__ == "__main__":
    torch.cpu._is_avx512_bf16_supported = lambda: False  # fp32 everywhere
    torch.use_deterministic_algorithms(True, warn_only=True)
    print(json.dumps({name: COMPUTED[name]() for name in sys.argv[1:]}))
