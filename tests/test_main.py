"""The command line: help with an example, errors in a sentence, and what each command leaves."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from toys_classifier import squares

from lensdiff import __main__ as command
from lensdiff import storage
from lensdiff.errors import ParameterError
from lensdiff.model import Model, load
from lensdiff.studies import gallery, train
from lensdiff.training import tracking

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = ("train", "draw", "score", "study", "notebooks")


def run(*words: str, folder: Path = ROOT) -> subprocess.CompletedProcess:
    """The command as a user types it."""
    line = [sys.executable, "-m", "lensdiff", *words]
    return subprocess.run(line, cwd=folder, capture_output=True, text=True)


@pytest.mark.parametrize("words", [(name,) for name in COMMANDS], ids=" ".join)
def test_help_shows_an_example(words: tuple[str, ...], capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as end:
        command.main([*words, "--help"])
    assert end.value.code == 0
    assert "example: python -m lensdiff " + words[0] in capsys.readouterr().out


@pytest.mark.parametrize("study", sorted(command.STUDIES))
def test_each_study_has_help_with_an_example(study: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as end:
        command.main(["study", study, "--help"])
    assert end.value.code == 0
    assert f"example: python -m lensdiff study {study}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["train", "no-such", "x"], "There is no recipe 'no-such'; there are lens64"),
        (["train", "tiny", "x", "--head", "plain"], "--head does not apply to the recipe tiny"),
        (["train", "lensnet", "x", "--width", "32"], "--width does not apply"),
        (["train", "tiny", "x", "--steps", "0"], "steps or minutes must be positive"),
        (["train", "tiny", "x", "--data", "no-such-folder"], "there is no such folder"),
        (["train", "digits-vq", "x", "--width", "32"], "--width does not apply"),
        (["train", "digits-vq", "x", "--steps", "0"], "must be positive"),
        (["train", "digits-vq", "x", "--data", "data/sample"], "there is no train-images"),
        (["train", "latent-digits", "x", "--autoencoder", "no-such"], "can't be read as"),
        (["train", "latent-digits", "x", "--autoencoder", "lens64"], "is no autoencoder"),
        (["train", "tiny", "x", "--track", "paper"], "There is no tracker 'paper'"),
        (["train", "lensnet", "x", "--autoencoder", "y"], "--autoencoder does not apply"),
        (["train", "lensnet", "x", "--sigmas", "1", "1"], "--sigmas does not apply"),
        (["train", "digits-vq", "x", "--sigmas", "1", "1"], "--sigmas does not apply"),
        (["train", "lensnet", "x", "--learns", "stem"], "--learns does not apply"),
        (["train", "digits-vq", "x", "--learns", "stem"], "--learns does not apply"),
        (["train", "tiny", "x", "--sigmas", "1", "0"], "a mean, and a deviation above 0"),
        (["train", "tiny", "x", "--sigmas", "nan", "1"], "a mean, and a deviation above 0"),
        (["draw", "no-such"], "no shipped model"),
        (["draw", "lensnet"], "is a classifier"),
        (["draw", "lens64", "-n", "0"], "draw one or more"),
        (["draw", "lens64", "--noiseless"], "it has no telescope that could be left out"),
        (["draw", "lens64", "--levels", "log", "--high", "0"], "go down and are positive"),
        (
            ["train", "latent150", "x", "--data", "data/sample"],
            "First: train lens150-kl DIR --data",
        ),
        (["draw", "parameters64", "--label", "axion"], "Give seven numbers: Einstein radius"),
        (["draw", "classes64", "--label", "cdm", "axion"], "draw one class at a time"),
        (["draw", "lens64", "--label", "cdm"], "unconditional"),
        (["draw", "classes64", "--guidance", "2"], "--guidance leads to what --label asks for"),
        (["draw", "lens64", "--levels", "linear", "--high", "9"], "--high does not apply to the"),
        (["draw", "lens64", "--levels", "flow", "--low", "1"], "--low does not apply to the lev"),
        (["train", "tiny", "x", "--symmetries", "1"], "--symmetries is of files of lenses"),
        (["train", "digits-vq", "x", "--symmetries", "8"], "--symmetries is of files of lenses"),
        (["train", "digits-vq", "x", "--unbalanced"], "digits-vq learns no classes"),
        (["train", "tiny", "x", "--unbalanced"], "tiny learns no classes"),
        (["score", "lensnet", "--recipe", "lensnet", "--data", "x"], "--recipe names simulated"),
        (["study", "sizes", "lens64"], "lens64 draws no lenses of 150 pixels"),
        (["study", "physics", "lensnet"], "lensnet is a classifier or an autoencoder"),
        (["study", "census", "lensnet"], "lensnet is a classifier or an autoencoder"),
        (["study", "samplers", "lens64", "-n", "3000"], "are needed. Lower n"),
        (["draw", "classes64", "--label", "galaxy"], "there is no 'galaxy'"),
        (["score", "data/sample"], "can't be read as a checkpoint"),
        (["notebooks", "--only", "99"], "No notebook starts with '99'"),
        (["notebooks", "-p", "no_such", "1"], "has a parameter named no_such"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_an_error_is_one_sentence(
    words: list[str],
    sentence: str,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(ROOT)
    assert command.main(words) == 1
    text = capsys.readouterr().err
    assert sentence in text and "Traceback" not in text and len(text.strip().splitlines()) == 1


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ValueError("shapes (3,) and (4,) not aligned")

    monkeypatch.setattr(command, "_draw", broken)
    with pytest.raises(ValueError, match="not aligned"):
        command.main(["draw", "lens64"])


def test_a_missing_command_says_which_there_are() -> None:
    found = run()
    assert found.returncode == 2 and "COMMAND" in found.stderr


def test_draw_leaves_a_picture_and_an_array(tmp_path: Path) -> None:
    out = tmp_path / "new" / "lenses.of-mine"
    words = ["draw", "classes64", "-n", "3", "--seed", "5", "--label", "axion"]
    assert command.main([*words, "--steps", "2", "--out", str(out)]) == 0
    images = np.load(f"{out}.npy", allow_pickle=False)
    assert images.shape == (3, 1, 64, 64) and images.min() >= 0 and images.max() <= 1
    with Image.open(f"{out}.png") as picture:
        assert picture.width > 2 * picture.height
    left = sorted(path.name for path in out.parent.iterdir())
    assert left == [f"{out.name}{end}" for end in (".html", ".npy", ".png")]
    page = Path(f"{out}.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == 1 and "axion" in page and "http" not in page


def test_draw_takes_lens_parameters(tmp_path: Path) -> None:
    out = tmp_path / "lens"
    values = ["1.4", "0.1", "0.1", "0.1", "-0.2", "0", "0.02"]
    words = ["draw", "parameters64", "-n", "1", "--steps", "2", "--noiseless", "--label", *values]
    assert command.main([*words, "--out", str(out)]) == 0
    assert np.load(f"{out}.npy").shape == (1, 1, 64, 64)


def test_train_goes_on_where_it_stopped_and_says_what_comes_next(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LENSDIFF_CACHE", str(tmp_path / "cache"))
    model = tmp_path / "model"
    words = ["train", "tiny", str(model), "--data", str(ROOT / "data" / "sample"), "--batch", "4"]
    words += ["--state", str(tmp_path / "state"), "--steps", "2", "--width", "16"]
    words += ["--sigmas", "1.5", "1.4"]
    assert command.main(words) == 0
    shown = capsys.readouterr().out
    assert f"python -m lensdiff score {model}" in shown
    assert shown.strip().endswith(str(model / "page.html"))
    page = (model / "page.html").read_text(encoding="utf-8")
    assert "images that it drew" in page and "SHA-256" in page and "http" not in page
    first = load(model)
    assert isinstance(first, Model) and first.spec["images_seen"] == 8
    assert first.spec["recipe"]["train"]["sigmas"] == {"mean": 1.5, "std": 1.4}
    state = next((tmp_path / "state").glob("0*"))
    saved = {path.name: path.stat().st_mtime_ns for path in state.iterdir()}
    assert command.main(words) == 0, "a finished run is shown once more"
    assert load(model).spec["sha256"] == first.spec["sha256"]
    assert saved == {path.name: path.stat().st_mtime_ns for path in state.iterdir()}
    words[2] = str(tmp_path / "part")
    words[words.index("--state") + 1] = str(tmp_path / "part-state")
    assert command.main([*words, "--start", str(model), "--learns", "stem", "exit"]) == 0
    assert load(words[2]).spec["recipe"]["train"]["learns"] == ["stem", "exit"]
    page = (tmp_path / "part" / "page.html").read_text(encoding="utf-8")
    assert "weights that learn" in page and "stem, exit" in page


def test_a_tracked_training_leaves_its_curve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LENSDIFF_CACHE", str(tmp_path / "cache"))
    model = tmp_path / "model"
    words = ["train", "tiny", str(model), "--data", str(ROOT / "data" / "sample"), "--batch", "4"]
    words += ["--steps", "2", "--width", "16", "--track", "tensorboard"]
    assert command.main(words) == 0
    (events,) = (tmp_path / "model-tensorboard").rglob("events.out.*")
    kept = events.read_bytes()
    assert kept.count(b"images_seen") == 2 and b"lr" in kept


def test_of_several_processes_one_tracks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "LOGGER_TYPE_TO_CLASS", {})  # nothing could be started
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    with tracking.tracked("tensorboard", "m", tmp_path) as log:
        log(None)
    assert not list(tmp_path.iterdir())


def test_a_tracker_that_is_missing_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)  # as where it is not installed
    words = ["train", "tiny", str(tmp_path / "m"), "--steps", "1", "--track", "wandb"]
    assert command.main(words) == 1
    assert "python -m pip install wandb" in capsys.readouterr().err


def test_train_an_autoencoder_and_then_its_latents(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LENSDIFF_CACHE", str(tmp_path / "cache"))
    ends = str(tmp_path / "ends")
    model = str(tmp_path / "model")
    words = ["--steps", "1", "--batch", "4"]
    assert command.main(["train", "digits-kl", ends, *words]) == 0
    assert f"--autoencoder {ends}" in capsys.readouterr().out
    assert command.main(["train", "latent-digits", model, "--autoencoder", ends, *words]) == 0
    drawn = ["-n", "2", "--label", "7", "--steps", "2", "--out", str(tmp_path / "drawn")]
    assert command.main(["draw", model, *drawn]) == 0
    assert np.load(tmp_path / "drawn.npy").shape == (2, 1, 28, 28)
    capsys.readouterr()
    for words, sentence in (
        (["draw", ends], "it is a classifier or an autoencoder"),
        (["score", ends], "is an autoencoder, which draws nothing"),
        (["score", model], "draws digits, and scores are of lenses"),
    ):
        assert command.main(words) == 1
        assert sentence in capsys.readouterr().err


def test_the_pages_of_results_are_those_of_the_json_files() -> None:
    """`python -m lensdiff study gallery` would change nothing."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert gallery.with_results(readme, gallery.results()) == readme
    test = (ROOT / "docs" / "deeplense.md").read_text(encoding="utf-8")
    assert gallery.with_results(test, gallery.answers()) == test
    assert storage.shipped("README.md").read_text(encoding="utf-8") == gallery.page()


def test_own_files_of_a_classifier_are_learnt_in_the_flips_asked_for(monkeypatch) -> None:
    learnt = []
    monkeypatch.setattr("lensdiff.training.recipe.images_of", lambda *_: squares(60))
    monkeypatch.setattr("lensdiff.training.fit.fit", lambda recipe, *_: learnt.append(recipe))
    words = ["train", "lensnet", "x", "--data", "mine"]
    for more, elements in (([], (0, 2)), (["--symmetries", "8"], tuple(range(8)))):
        args = command.parser_for(words).parse_args([*words, *more])
        following = train._train_recipe(args, print)
        assert tuple(learnt[-1].train.elements) == elements
        assert following == "Score it with: python -m lensdiff score x --data mine"
    words = ["train", "judge-digits", "my x", "--data", "my files"]
    following = train._train_recipe(command.parser_for(words).parse_args(words), print)
    assert following == "Score it with: python -m lensdiff score 'my x' --data 'my files'"
    words = ["train", "lens150-kl", "x", "--data", "mine"]
    following = train._train_recipe(command.parser_for(words).parse_args(words), print)
    said = "Learn its latents with: python -m lensdiff train RECIPE DIR --autoencoder x --data mine"
    assert following == said
    for words, expected in (
        (["train", "classes64", "x", "--data", "mine"], "Notebook 06 scores the classes of files"),
        (["train", "latent-digits", "x"], "Notebook 08 shows how digits are judged."),
    ):
        following = train._train_recipe(command.parser_for(words).parse_args(words), print)
        assert following.startswith(expected) and "--data" not in following
    words = ["train", "lensnet", "x", "--data", "mine"]
    args = command.parser_for(words).parse_args([*words, "--images", "0"])
    with pytest.raises(ParameterError, match="learn one or more"):
        train._train_recipe(args, print)
