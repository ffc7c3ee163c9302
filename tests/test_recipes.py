"""From a recipe and images to a checkpoint, and the frame of every notebook."""
import json
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from IPython.core.interactiveshell import InteractiveShell

from lensdiff import runtime, storage
from lensdiff.data import images
from lensdiff.errors import CheckpointError, DataError, ParameterError
from lensdiff.lensing import parameters
from lensdiff.lensing.survey import diverse
from lensdiff.model import Sampling, load
from lensdiff.networks.unet import UNet
from lensdiff.notebook import exercises, helpers
from lensdiff.scores.card import FIRST_SEED, stored_images
from lensdiff.storage import shipped
from lensdiff.training import fit, recipes

SMALL = recipes.Recipe(
    "small",
    network={"channels": (16, 32), "blocks": 1, "attention_levels": (), "unshuffle": 2},
    train=recipes.TrainConfig(steps=6, batch=4, held_out_every=3, held_out_images=8, save_every=2, warmup_steps=2),
    sampling=Sampling(steps=3),
)


def made(channels=1, height=16, width=16):
    rng = np.random.default_rng(0)
    return images.ImageSet("made", rng.random((40, channels, height, width), np.float32), "a" * 64)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_recipe_gives_a_checkpoint_that_describes_itself_and_draws(tmp_path, channels):
    steps = []
    model = fit.fit(SMALL, made(channels), tmp_path / "model", each=steps.append)
    assert [step.number for step in steps] == [1, 2, 3, 4, 5, 6]
    spec = json.loads((tmp_path / "model" / "spec.json").read_text())
    assert spec["images_seen"] == 24
    assert spec["recipe"]["train"]["batch"] == 4
    assert spec["data"] == {"name": "made", "fingerprint": "a" * 64, "images": 40}
    assert [row["update"] for row in spec["curve"]] == [3, 6]
    images = torch.cat(list(model.generate(range(3))))
    assert images.shape == (3, channels, 16, 16)
    assert 0 <= images.min() <= images.max() <= 1


def test_a_broken_off_fit_goes_on_and_keeps_its_whole_curve(tmp_path):
    def stop(step):
        if step.number == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit.fit(SMALL, made(), tmp_path / "model", tmp_path / "state", stop)
    again = fit.fit(SMALL, made(), tmp_path / "model", tmp_path / "state")
    whole = fit.fit(SMALL, made(), tmp_path / "whole")
    assert [row["update"] for row in again.spec["curve"]] == [3, 6]
    assert again.spec["sha256"] == whole.spec["sha256"]
    finished = fit.fit(SMALL, made(), tmp_path / "model", tmp_path / "state")  # nothing is left to do
    assert finished.spec["sha256"] == whole.spec["sha256"]


def test_a_new_stage_starts_from_a_checkpoint_and_is_recorded(tmp_path):
    first = fit.fit(SMALL, made(), tmp_path / "first")
    still = recipes.scaled(SMALL, steps=1, lr=1e-12)
    second = fit.fit(still, made(), tmp_path / "second", start=first)
    for name, tensor in first.denoiser.net.state_dict().items():
        torch.testing.assert_close(second.denoiser.net.state_dict()[name], tensor, rtol=0, atol=1e-3)
    third = fit.fit(still, made(), tmp_path / "third", start=second)
    assert [stage["sha256"] for stage in third.spec["stages"]] == [first.spec["sha256"], second.spec["sha256"]]
    assert [stage["images_seen"] for stage in third.spec["stages"]] == [24, 4]
    assert [stage["curve"] for stage in third.spec["stages"]] == [first.spec["curve"], second.spec["curve"]]
    other = replace(SMALL, prediction="v")
    with pytest.raises(CheckpointError, match=r"first: training can't go on .*predicts edm, not v"):
        fit.fit(other, made(), tmp_path / "other", start=first)


@pytest.mark.parametrize("labels", [{"classes": 3}, {"conditions": 7}])
def test_a_conditional_stage_starts_from_an_unconditional_one(tmp_path, labels):
    images = images.simulated(diverse(16), 40, seed=1, cache=tmp_path, noiseless=True)
    plain = fit.fit(replace(SMALL, noiseless=True), images, tmp_path / "plain")
    told = replace(SMALL, noiseless=True, network={**SMALL.network, **labels}, train=replace(SMALL.train, label_dropout=0.5))
    model = fit.fit(told, images, tmp_path / "told", start=plain)
    assert model.spec["stages"][0]["sha256"] == plain.spec["sha256"] and model.stretch == plain.stretch
    weights = model.denoiser.net.state_dict()
    assert any(weights[name].abs().max() > 0 for name in weights if name.startswith("label."))  # it began at zero, and has learnt
    asked = [0, 2] if "classes" in labels else parameters.of(images.truth[:2])
    drawn = torch.cat(list(model.generate([1, 2], label=model.labels(asked), guidance=2.0)))
    assert drawn.shape == (2, 1, 16, 16)
    with pytest.raises(DataError, match="learns noiseless images"):
        fit.fit(told, images.simulated(diverse(16), 40, seed=1, cache=tmp_path), tmp_path / "seen", start=plain)


def test_budgets_replace_each_other():
    assert recipes.scaled(recipes.LENS64, minutes=3).train.steps is None
    assert recipes.scaled(recipes.TINY, steps=5).train.minutes is None


def test_images_that_are_not_square_are_refused(tmp_path):
    with pytest.raises(DataError, match="20 x 16 pixels are not square"):
        fit.fit(SMALL, made(width=20), tmp_path / "model")


@pytest.mark.parametrize("name", ["lens64", "lens150"])
def test_a_shipped_model_draws_lenses_and_its_card_is_its_own(name):
    model, plan = load(shipped(name)), recipes.RECIPES[name]
    assert (shipped(name) / "weights.safetensors").stat().st_size < 15e6
    recipe = json.loads(json.dumps(plan.as_dict()))  # tuples as lists
    assert {**model.spec["recipe"], "network": None} == {**recipe, "network": None}
    assert {**recipe["network"], "image_channels": 1} == model.spec["network"]["arguments"]
    assert model.spec["images_seen"] == plan.train.steps * plan.train.batch == model.spec["curve"][-1]["images_seen"]
    assert model.spec["curve"][-1]["held_out"] < 0.6 * model.spec["curve"][0]["held_out"]
    card = json.loads((shipped(name) / "card.json").read_text())
    assert card["n_generated"] == card["n_reference"] == card["n_floor"] == 2048
    assert card["sampling"] == str(model.sampling)
    assert card["calls"] == model.sampling.calls <= 35
    assert card.Card(**card).markdown() in (storage.root() / "README.md").read_text()
    images = torch.cat(list(model.generate(range(8))))[:, 0]
    assert images.shape == (8, plan.pixels, plan.pixels)
    assert (images.amax((1, 2)) > 0.7).all()  # something bright in each
    assert (images[:, :4, :4].mean((1, 2)) < 0.08).all()  # on a dark sky
    assert len({tuple(np.round(image.flatten().numpy(), 2)) for image in images}) == 8


def test_the_large_model_began_as_the_small_one_and_carries_its_telescope():
    small, large = load(shipped("lens64")), load(shipped("lens150"))
    assert large.spec["stages"][0]["sha256"] == small.spec["sha256"]
    assert large.telescope.survey == diverse(150) and small.telescope is None
    light, seen = (torch.cat(list(large.generate(range(4), observed=observed))) for observed in (False, True))
    noise = [x[..., :18, :18].diff(dim=-1).std().item() for x in (light, seen)]
    assert noise[0] < 0.2 * noise[1]


def test_the_pictures_and_the_legacy_row_are_the_shipped_models():
    model = load(shipped("lens150"))
    pictures = stored_images(model.folder, [model.spec["sha256"], str(model.sampling), FIRST_SEED])
    assert pictures.shape == (1_024, 1, 150, 150)
    again = torch.cat(list(model.generate(range(FIRST_SEED, FIRST_SEED + 4))))
    assert ((again - pictures[:4]).abs() > 0.05).float().mean() < 0.02  # bf16 sums depend on the machine
    old = json.loads((model.folder / "legacy.json").read_text())
    assert old["model_sha256"] == model.spec["sha256"] and old["n_generated"] == old["n_reference"] == 2_500
    assert "training" in old["reference"] and old["resolution"] == "128 x 128"


def test_the_shipped_sampling_is_near_the_best_and_precision_does_not_matter():
    model = load(shipped("lens150"))
    sweep = json.loads((model.folder / "samplers.json").read_text())
    assert sweep["model_sha256"] == model.spec["sha256"]
    rows = sweep["rows"]
    best = min(row["distance"] for row in rows)
    way = model.sampling.sampler, model.sampling.calls
    own = {row["precision"]: row["distance"] for row in rows if (row["sampler"], row["calls"]) == way}
    assert model.sampling.calls <= 20 and own["bf16"] <= 1.1 * best
    assert min(row["distance"] for row in rows if row["calls"] <= 10) <= 1.5 * best
    card = json.loads((model.folder / "card.json").read_text())
    assert abs(own["bf16"] - own["fp32"]) <= card["distance_error"]


TOLD = replace(SMALL, name="told", network={**SMALL.network, "classes": 3})


@pytest.mark.parametrize(("change", "message"), [
    ({"labels": None}, "lenses has no labels"),
    ({"labels": np.arange(39) % 3}, "39 labels for 40 images"),
    ({"labels": np.arange(40) % 3 + 1}, "image 2 has the label 3"),
    ({"labels": np.arange(40) % 2}, "lacks a class: 20 no_sub, 20 cdm, 0 axion"),
    ({"labels": np.minimum(np.arange(40) % 8, 2)}, "unbalanced: 5 no_sub, 5 cdm, 30 axion"),
    ({"labels": np.arange(40) % 2, "classes": ("a", "b")}, r"2 classes \(a, b\), told is told 3"),
])  # fmt: skip
def test_classes_that_cannot_be_learnt_are_refused_before_any_update(tmp_path, change, message):
    images = replace(made(), name="lenses", classes=("no_sub", "cdm", "axion"), labels=np.arange(40) % 3)
    steps = []
    with pytest.raises(DataError, match=message):
        fit.fit(TOLD, replace(images, **change), tmp_path / "model", tmp_path / "state", steps.append)
    assert not steps and not list(tmp_path.iterdir())


def test_unequal_classes_are_learnt_where_that_is_meant_and_other_classes_are_no_start(tmp_path):
    images = replace(made(), classes=("no_sub", "cdm", "axion"), labels=np.minimum(np.arange(40) % 8, 2))
    model = fit.fit(TOLD, images, tmp_path / "model", unbalanced=True)
    assert model.spec["classes"] == ["no_sub", "cdm", "axion"] and model.denoiser.net.classes == 3
    again = fit.fit(TOLD, images, tmp_path / "again", start=model, unbalanced=True)
    assert again.spec["stages"][0]["sha256"] == model.spec["sha256"]
    other = replace(images, classes=("dog", "cat", "bird"), labels=np.arange(40) % 3)
    with pytest.raises(CheckpointError, match=r"model: it knows the classes \('no_sub', 'cdm', 'axion'\), not \('dog'"):
        fit.fit(TOLD, other, tmp_path / "never", start=model)
    plain = fit.fit(SMALL, other, tmp_path / "plain")  # a start without classes knows none that could differ
    fit.fit(TOLD, other, tmp_path / "told", start=plain)


def test_a_recipe_is_widened_in_proportion():
    assert recipes.widened(recipes.LENS150, 96).network["channels"] == (96, 192, 288)
    assert recipes.widened(recipes.LENS150, 16).network["channels"] == (16, 32, 48)
    assert recipes.widened(recipes.LENS150, 128).train == recipes.LENS150.train
    with pytest.raises(ValueError, match="16 or more"):
        recipes.widened(recipes.LENS150, 8)


def test_the_profile_is_the_parameter_then_the_environment_then_standard(monkeypatch):
    monkeypatch.delenv("LENSDIFF_PROFILE", raising=False)
    assert helpers.resolve_profile() == "standard"
    monkeypatch.setenv("LENSDIFF_PROFILE", "smoke")
    assert helpers.resolve_profile() == "smoke"
    assert helpers.resolve_profile("full") == "full"
    with pytest.raises(ParameterError, match=r"profile is 'fast'; it must be one of 'smoke'"):
        helpers.resolve_profile("fast")


@pytest.mark.parametrize("value", [-1, 11, 2.5, "3", True, None])
def test_a_wrong_number_is_named(value):
    with pytest.raises(ParameterError, match=r"steps is .*whole number from 0 to 10"):
        helpers.number("steps", value, 0, 10, whole=True)
    assert helpers.number("steps", 3.0, 0, 10, whole=True) == 3


def test_a_wrong_value_gives_a_sentence_and_not_a_stack_trace(capsys):
    shell = InteractiveShell.instance()
    shell.run_cell("from lensdiff import notebook\nnotebook.pick('recipe', 'huge', ('tiny',))")
    shown = capsys.readouterr().out.strip()
    assert shown == "ParameterError: recipe is 'huge'; it must be one of 'tiny'."


def test_no_progress_bar_under_papermill(monkeypatch):
    monkeypatch.delenv("LENSDIFF_QUIET", raising=False)
    for words, expected in ((["python", "bin/papermill", "a.ipynb"], True), (["python", "bin/jupyter-lab"], False)):
        monkeypatch.setattr(images.psutil.Process, "cmdline", lambda self, words=words: words)
        runtime.quiet.cache_clear()
        assert runtime.quiet() is expected
        assert runtime.progress(total=3).disable is expected
    runtime.quiet.cache_clear()


def test_an_exercise_is_checked(capsys):
    exercises.check(None, lambda a: a == 3, "hint")
    exercises.check(3, lambda a: a == 3, "hint")
    assert capsys.readouterr().out == "No answer yet.\nRight.\n"
    with pytest.raises(AssertionError, match=r"Not yet\. hint"):
        exercises.check(4, lambda a: a == 3, "hint")


def test_stored_answers_must_pass_and_wrong_ones_fail(capsys):
    judge = exercises.check(None, lambda a: a(2) == 4, "hint")
    exercises.prove([judge], [lambda x: x * x], [[lambda x: x, lambda: 4, 4]])  # one that can't be called as asked, one that is no function
    assert capsys.readouterr().out == "No answer yet.\n1 stored answers pass their checks; 3 wrong ones fail.\n"
    with pytest.raises(AssertionError, match="Exercise 1 takes a wrong answer for right"):
        exercises.prove([judge], [lambda x: x * x], [[lambda x: x + 2]])
    with pytest.raises(AssertionError, match="Not yet"):
        exercises.prove([judge], [lambda x: x], [[3]])
    with pytest.raises(AssertionError, match="no wrong answer"):
        exercises.prove([judge], [lambda x: x * x], [[]])
    with pytest.raises(AssertionError, match=r"raised TypeError: .*hint"):
        exercises.check(3, lambda a: a(2) == 4, "hint")


@pytest.mark.parametrize("name", recipes.NETWORKS)
def test_published_networks_answer_at_the_size_of_their_images(name):
    with torch.device("meta"):
        net = UNet(**recipes.NETWORKS[name])
        shape = (2, 1, 128, 128) if name == "five_levels" else (2, 1, 64, 64)
        assert net(torch.empty(shape), torch.empty(2)).shape == shape
    assert net.multiple == (16 if name == "five_levels" else 8)


def test_keep_copies_a_file_or_saves_a_figure(tmp_path, monkeypatch):
    (tmp_path / "film.gif").write_bytes(b"GIF89a")
    assert helpers.keep(tmp_path / "film.gif", "a.gif") == tmp_path / "film.gif"
    monkeypatch.setenv("LENSDIFF_FIGURES", str(tmp_path / "figures"))
    (tmp_path / "figures").mkdir()
    helpers.keep(tmp_path / "film.gif", "a.gif")
    helpers.keep(plt.figure(), "b.png")
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == ["a.gif", "b.png"]
    assert (tmp_path / "figures" / "a.gif").read_bytes() == b"GIF89a"
