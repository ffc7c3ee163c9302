"""`python -m lensdiff score`: what is computed for each kind of model, and what is stored."""

import argparse
import json
import shutil
from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
import torch
from toys_classifier import small_classifier, squares
from toys_scores import NETWORK, Pooled, small_model

from lensdiff import storage
from lensdiff.__main__ import parser_for
from lensdiff.data.folders import folder
from lensdiff.data.images import CHOSEN, simulated
from lensdiff.errors import MetricError, ParameterError, StorageError
from lensdiff.lensing.survey import model_i
from lensdiff.model import Model, load, save
from lensdiff.networks import classifier
from lensdiff.scores import card
from lensdiff.scores.distances import frechet
from lensdiff.scores.statistics import reference, statistics, to_uint8
from lensdiff.storage import shipped
from lensdiff.studies import samplers, score_classifier, scoring

pytestmark = pytest.mark.filterwarnings("ignore::lensdiff.scores.card.SampleSizeWarning")


def arguments(folder, *more: str) -> argparse.Namespace:
    given = ["score", str(folder), *more]
    return parser_for(given).parse_args(given)


@pytest.fixture
def model(tmp_path, lenses16, monkeypatch):
    """A small model, whose score uses a small extractor and 64 lenses."""
    monkeypatch.setenv("LENSDIFF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(scoring, "extractor", lambda *_: Pooled(2))
    monkeypatch.setattr(scoring, "lenses", lambda *_: lenses16)
    monkeypatch.setattr(scoring, "LEGACY_IMAGES", 20)
    return small_model(tmp_path / "m")


def test_card_features_and_images_are_stored_beside_the_weights(model, lenses16, capsys):
    given = arguments(model.folder, "-n", "16", "--images", "5", "--legacy", "--precision", "fp32")
    scoring.run(given)
    stored = json.loads((model.folder / "card.json").read_text())
    assert card.Card(**stored).markdown() in capsys.readouterr().out
    net = Pooled(2)
    images = to_uint8(model.draw(20, card.FIRST_SEED))
    expected = statistics(net, [images[:16] / 255])
    real = reference(net, lenses16, range(16))
    assert stored["distance"] == pytest.approx(frechet(expected, real), rel=1e-6)
    assert stored["n_generated"] == stored["n_reference"] == stored["n_floor"] == 16
    assert stored["distance_error"] > 0
    assert stored["excess_error"] > 0
    features = card.stored_features(model.folder, card.features_key(model, net, model.sampling))
    np.testing.assert_allclose(features.rows, expected.rows, rtol=1e-3)
    shown = card.stored_images(model.folder, card.images_key(model, model.sampling))
    torch.testing.assert_close(shown, images[:5] / 255)
    legacy = json.loads((model.folder / "legacy.json").read_text())
    assert legacy["n_generated"] == legacy["n_reference"] == 20
    assert legacy["resolution"] == "128 x 128"
    assert legacy["model_sha256"] == model.spec["sha256"]


def test_a_dry_run_with_other_settings_stores_nothing(model):
    before = sorted(model.folder.iterdir())
    given = (
        "-n",
        "8",
        "--steps",
        "3",
        "--sampler",
        "ddim",
        "--levels",
        "karras",
        "--high",
        "90",
        "--dry",
    )
    made = scoring.of_unconditional(model, arguments(model.folder, *given))
    wanted = replace(model.sampling, sampler="ddim", steps=3, levels="karras", high=90.0)
    assert made.sampling == str(wanted)
    assert made.calls == 3
    assert sorted(model.folder.iterdir()) == before


@pytest.mark.parametrize(("n", "message"), [("33", "64 images; 33"), ("7", "needs 8 or more")])
def test_too_few_images_are_refused_before_any_is_drawn(model, n, message):
    generates = AssertionError("images were generated")
    with (
        mock.patch.object(Model, "generate", side_effect=generates),
        pytest.raises(MetricError, match=message),
    ):
        scoring.run(arguments(model.folder, "-n", n))


def own_folder(root, n: int = 240) -> object:
    """DeepLense files of three kinds, each with a brightness of its own."""
    rng = np.random.default_rng(0)
    for label, kind in enumerate(("no", "sphere", "vort")):
        (root / kind).mkdir(parents=True)
        for k in range(n // 3):
            pixels = rng.random((16, 16), dtype=np.float32)
            pixels[: 4 + 4 * label] *= 0.2
            np.save(root / kind / f"{k}.npy", pixels)
    return folder(root)


def learnt_from(model, images, **more) -> None:
    """Save the model again, as one that learnt `images`."""
    spec = {key: model.spec[key] for key in ("classes", "sampling", "images_seen")}
    more |= {**spec, "data": images.as_dict()}
    save(model.folder, model.denoiser, NETWORK, model.stretch, 16, **more)


def test_a_model_of_files_is_not_held_against_simulated_lenses(model, tmp_path):
    learnt_from(model, own_folder(tmp_path / "mine"))
    with pytest.raises(ParameterError, match=r"learnt folder-mine.*Give the same folder by --data"):
        scoring.run(arguments(model.folder))


def test_the_folder_that_it_learnt_is_scored_on_what_was_held_out(model, tmp_path):
    images = own_folder(tmp_path / "mine")
    learnt_from(model, images)
    scoring.run(
        arguments(model.folder, "--data", str(tmp_path / "mine"), "-n", "12", "--precision", "fp32")
    )
    stored = json.loads((model.folder / "card.json").read_text())
    assert stored["reference"].startswith("held-out part of folder-mine, 24 held out")
    _, held = images.split()
    net = Pooled(2)
    real = reference(net, images.subset(held, "h"), range(12))
    generated = statistics(net, [to_uint8(model.draw(12, card.FIRST_SEED)) / 255])
    assert stored["distance"] == pytest.approx(frechet(generated, real), rel=1e-6)
    shutil.copytree(tmp_path / "mine", tmp_path / "copied" / "mine", copy_function=shutil.copyfile)
    again, split = scoring.real_images(load(model.folder), tmp_path / "copied" / "mine")
    assert split == "held-out part" and len(again) == 24, "a copy has other times"
    np.testing.assert_array_equal(again.pixels, images.pixels[held])
    with pytest.raises(MetricError, match="24 held out has 24 images"):
        scoring.run(arguments(model.folder, "--data", str(tmp_path / "mine"), "-n", "13"))


def test_what_is_shipped_is_not_replaced_by_a_trial(model, tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "shipped", lambda name: tmp_path / name)
    monkeypatch.setattr(scoring, "ENOUGH", 12)
    files = ("--data", str(tmp_path / "mine"))
    own_folder(tmp_path / "mine")
    for more in (("-n", "13"), ("--steps", "3"), ("--extractor", "inception"), files):
        with pytest.raises(ParameterError, match=r"a shipped model.*Add --dry"):
            scoring.run(arguments(model.folder, *more))
    monkeypatch.chdir(tmp_path)  # a path from here leads to the same folder
    with pytest.raises(ParameterError, match=r"a shipped model.*Add --dry"):
        scoring.run(arguments(model.folder.name, "-n", "13"))
    assert not (model.folder / "card.json").exists()
    assert scoring.run(arguments(model.folder, "-n", "13", "--dry"))
    place = classifier.save(tmp_path / "c", small_classifier())
    with pytest.raises(ParameterError, match=r"a shipped model.*Add --dry"):
        scoring.run(arguments(place, *files))


def test_every_stage_says_what_it_learnt(lenses16, capsys):
    """The last learnt these files; an earlier one others of their name, or rows chosen by hand."""
    own = {"name": lenses16.name, "fingerprint": lenses16.fingerprint}
    stages = [{"data": {**own, "fingerprint": "b" * 64}}, {"data": {**own, "rows": CHOSEN}}]
    files = replace(lenses16, truth=None)
    assert len(files.unseen({"data": own, "stages": stages[:1]})) == len(lenses16.split()[1])
    assert "its files are others than the model learnt" in capsys.readouterr().out
    with pytest.raises(ParameterError, match="rows of it that were chosen by hand"):
        files.unseen({"data": own, "stages": stages})


def test_simulated_test_lenses_are_never_called_another_state_of_a_folder(lenses16, capsys):
    """Those to train on and to test on have one name, and other fingerprints."""
    assert lenses16.unseen({"data": {"name": lenses16.name, "fingerprint": "b" * 64}}) is lenses16
    assert not capsys.readouterr().out


def test_every_stage_of_a_model_has_seen_its_images(model, tmp_path, capsys):
    first = own_folder(tmp_path / "first")
    second = own_folder(tmp_path / "second")
    learnt_from(model, second, stages=[{"data": first.as_dict()}])
    for name in ("first", "second"):
        assert scoring.real_images(load(model.folder), tmp_path / name)[1] == "held-out part"
    np.save(tmp_path / "first" / "no" / "more.npy", np.eye(16, dtype=np.float32))
    assert scoring.real_images(load(model.folder), tmp_path / "first")[1] == "test set"
    assert "others than the model learnt under this name" in capsys.readouterr().out


def test_an_older_model_knows_its_folder_by_the_name_of_the_cache(model, tmp_path):
    images = own_folder(tmp_path / "mine")
    older = replace(images, fingerprint=images.folder.name.removeprefix("folder-mine-") + "0" * 52)
    learnt_from(model, older)
    assert scoring.real_images(load(model.folder), tmp_path / "mine")[1] == "held-out part"


def test_a_folder_that_leaves_too_few_for_a_score_is_refused(model, tmp_path):
    learnt_from(model, own_folder(tmp_path / "fewer", 150))
    message = "15 held out: a score takes 16 images .*let it learn 160 files or more"
    with pytest.raises(ParameterError, match=message):
        scoring.run(arguments(model.folder, "--data", str(tmp_path / "fewer")))


def test_reference_and_floor_of_class_folders_hold_all_classes(model, tmp_path):
    """Sorted by path, the floor of three such classes would be a distance between classes."""
    own_folder(tmp_path / "other")
    scoring.run(arguments(model.folder, "--data", str(tmp_path / "other"), "--dry"))
    images, split = scoring.real_images(model, tmp_path / "other")
    assert split == "test set" and len(images) == 240
    net = Pooled(2)
    halves = (range(120), range(120, 240))
    mixed = frechet(*(reference(net, images, rows) for rows in halves))
    order = np.argsort(images.labels, kind="stable")
    by_class = frechet(*(reference(net, images.subset(order, "sorted"), rows) for rows in halves))
    assert mixed < 0.1 * by_class


@pytest.mark.parametrize("option", ["--dry", "--data=somewhere", "--steps=3", "--images=2"])
def test_a_conditional_model_refuses_options_of_cards(tmp_path, option):
    place = small_model(tmp_path / "m", classes=3).folder
    name = option.split("=")[0]
    with pytest.raises(ParameterError, match=f"{name} does not apply to a model of classes"):
        scoring.run(arguments(place, option))


@pytest.mark.parametrize(
    ("network", "options", "refused"),
    [
        ({"classes": 3}, ("-n", "50"), "^-n does not apply to a model of classes"),
        ({"classes": 3}, ("--extractor", "inception"), "--extractor does not apply"),
        ({"conditions": 7}, ("--judge", "judge64"), "--judge does not apply to a model of lens p"),
        ({"conditions": 7}, ("--each", "9"), "--each does not apply"),
        ({"classes": 3}, ("--precision", "fp32"), "--precision does not apply to a model of cl"),
        ({}, ("--inception-weights", "a.pth"), "--inception-weights is of --extractor inception"),
        ({}, ("--scales", "2"), "--scales does not apply to an unconditional model"),
    ],
)
def test_an_option_that_would_do_nothing_is_refused(tmp_path, network, options, refused):
    place = small_model(tmp_path / "m", **network).folder
    with pytest.raises(ParameterError, match=refused):
        scoring.run(arguments(place, *options))


@pytest.mark.parametrize(
    ("network", "study"), [({"classes": 3}, "of_classes"), ({"conditions": 7}, "of_parameters")]
)
def test_a_conditional_model_gets_its_table(tmp_path, monkeypatch, capsys, network, study):
    folder = small_model(tmp_path / "m", **network).folder
    given = []

    def noted(model, *more) -> dict:
        given.append((model.folder, *more))
        return {"scales": [1, 2]}

    monkeypatch.setattr(scoring.conditional, study, noted)
    more = ("--each", "9") if study == "of_classes" else ("-n", "50")
    scoring.run(arguments(folder, "--scales", "1", "2", *more))
    (called,) = given
    assert called[0] == folder
    assert [1.0, 2.0] in called
    assert called[-1] == 50 if study == "of_parameters" else called[-2] == 9
    assert f"{folder / 'conditional.json'}: 2 scales" in capsys.readouterr().out


def test_a_small_test_set_of_a_classifier_is_reported_as_a_whole(tmp_path, monkeypatch, capsys):
    folder = classifier.save(tmp_path / "mine", small_classifier())
    monkeypatch.setattr(score_classifier, "_images_of", lambda *_: (squares(90), squares(30)))
    scoring.run(arguments(folder, "--recipe", "lensnet"))
    found = json.loads((folder / "report.json").read_text())
    assert found["all"]["n"] == 30 and "tenth" not in found
    assert "Without the published tenth: " in capsys.readouterr().out


def test_a_classifier_gets_its_report(tmp_path, monkeypatch, capsys):
    train = squares(90)
    test = squares(60, seed=1)
    folder = classifier.save(tmp_path / "mine", small_classifier())
    monkeypatch.setattr(score_classifier, "_images_of", lambda *_: (train, test))
    scoring.run(arguments(folder, "--recipe", "lensnet", "--dry"))
    assert not (folder / "report.json").exists()
    words = capsys.readouterr().out
    scoring.run(arguments(folder, "--recipe", "lensnet"))
    assert capsys.readouterr().out == words
    found = json.loads((folder / "report.json").read_text())
    assert (found["all"]["n"], found["tenth"]["n"]) == (60, 6)
    share = f"{100 * found['all']['accuracy']:.2f} % of 60"
    assert f"all: {share}" in words
    assert found["weights_sha256"] == classifier.read(folder)[1]["sha256"]
    assert found["temperature"] > 0


def test_the_test_images_of_a_classifier_are_of_the_set_it_learnt(tmp_path):
    for name in ("lensnet", "judge64", "judge-digits"):
        assert score_classifier.recipe_of(shipped(name)) == name
    for name, said in (("mine-9", "learnt mine-9"), ("digits-all-train", "by --data")):
        with mock.patch.object(classifier, "read", return_value=({}, {"data": {"name": name}})):
            with pytest.raises(ParameterError, match=said):
                score_classifier.recipe_of(tmp_path)


def test_a_classifier_of_ones_own_digits_gets_the_test_files_beside_them(tmp_path, monkeypatch):
    digits = squares(60)
    learnt = {"name": "digits-all-train"}
    place = classifier.save(tmp_path / "c", small_classifier(), data=learnt)
    read = []
    monkeypatch.setattr(score_classifier, "digits", lambda *given: read.append(given) or digits)
    words = score_classifier.of_classifier(place, data=tmp_path / "mnist")
    assert read == [("train", tmp_path / "mnist"), ("test", tmp_path / "mnist")]
    assert "of 60" in words and (place / "report.json").exists()


def test_legacy_is_for_simulated_lenses(tmp_path):
    words = ["score", str(shipped("lens64")), "--data", str(tmp_path), "--legacy"]
    with pytest.raises(ParameterError, match="no --data with it"):
        scoring.run(parser_for(words).parse_args(words))


def test_nothing_is_drawn_where_nothing_can_be_kept(model, monkeypatch):
    """`model` lies in a folder that takes no file any more."""
    monkeypatch.setattr(Model, "draw", None)  # to draw would fail
    monkeypatch.setattr(storage.Path, "touch", mock.Mock(side_effect=PermissionError("no")))
    with pytest.raises(StorageError, match=r"can't be written \(no\)\. Give it room"):
        scoring.run(arguments(model.folder, "-n", "12"))


def test_a_dry_run_needs_no_room(model, monkeypatch):
    monkeypatch.setattr(storage.Path, "touch", mock.Mock(side_effect=PermissionError("no")))
    assert scoring.run(arguments(model.folder, "-n", "12", "--dry"))


def test_what_a_reflowed_model_learnt_is_what_its_teacher_did():
    stages = [{"data": {"name": "diverse-64"}}, {"data": {"name": "pairs of lens64"}}]
    spec = {"data": {"name": "pairs of once"}, "stages": stages}
    assert samplers.learnt_by(spec) == "diverse-64"
    assert samplers.learnt_by({"data": {"name": "pairs of x"}}) == "pairs of x"


def test_a_model_of_another_population_is_not_held_against_test_lenses(model):
    other = simulated(model_i(16), 20, 1)
    learnt_from(model, other)
    with pytest.raises(ParameterError, match=r"learnt model_i-16, .*ld\.score\(model, images\)"):
        scoring.run(arguments(model.folder, "-n", "12"))
    with pytest.raises(ParameterError, match=r"learnt model_i-16\. This study is for models of"):
        samplers.check_of_lenses(load(model.folder), "mine")


def test_a_part_of_a_folder_that_was_learnt_is_not_called_unseen(model, tmp_path):
    images = own_folder(tmp_path / "mine")
    learnt_from(model, images.subset(np.arange(9), "bright"))
    with pytest.raises(ParameterError, match=r"learnt a part of it \(folder-mine, bright\)"):
        scoring.real_images(load(model.folder), tmp_path / "mine")


def test_fewer_images_and_another_recipe_are_trials_of_what_is_shipped(
    model, tmp_path, monkeypatch
):
    monkeypatch.setattr(storage, "shipped", lambda name: tmp_path / name)
    monkeypatch.setattr(scoring, "ENOUGH", 12)
    with pytest.raises(ParameterError, match=r"a shipped model.*Add --dry"):
        scoring.run(arguments(model.folder, "--images", "2"))
    about = {"name": "diverse-64", "fingerprint": "f"}
    place = classifier.save(tmp_path / "c", small_classifier(), data=about)
    with pytest.raises(ParameterError, match=r"a shipped model.*Add --dry"):
        scoring.run(arguments(place, "--recipe", "lensnet"))
    classes = small_model(tmp_path / "k", classes=3).folder
    for more in (("--most", "16"), ("--scales", "7"), ("--judge", str(place))):
        with pytest.raises(ParameterError, match=r"a shipped model.*Score a copy"):
            scoring.run(arguments(classes, *more))
