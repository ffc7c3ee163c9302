"""The frame of every notebook: its profile, its parameters, its errors, what it keeps."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import matplotlib.pyplot as plt
import pytest
from IPython.core.interactiveshell import InteractiveShell

from lensdiff.errors import ParameterError
from lensdiff.notebook import helpers
from lensdiff.storage import shipped


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


def test_a_model_is_a_shipped_one_by_name_or_a_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(helpers, "root", lambda: tmp_path / "copy")
    made = tmp_path / "copy" / "runs" / "mine"
    made.mkdir(parents=True)
    (tmp_path / "here" / "lens64").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    assert helpers.model_folder("lens64") == shipped("lens64")  # not the folder of this name
    assert helpers.model_folder("runs/mine") == helpers.model_folder(str(made)) == made
    made.rename(made.with_name("mine.1.old"))  # as a save leaves it that was killed
    assert helpers.model_folder("runs/mine") == made


@pytest.mark.parametrize("name", ["lens65", "", "/no/such/place", None, 3])
def test_what_is_no_model_is_one_sentence(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        ParameterError, match=r"is no (model: .*lens64, .*the path of|folder; give)"
    ):
        helpers.model_folder(name)


def test_keep_copies_a_file_or_saves_a_figure(tmp_path, monkeypatch):
    (tmp_path / "film.gif").write_bytes(b"GIF89a")
    assert helpers.keep(tmp_path / "film.gif", "a.gif") == tmp_path / "film.gif"
    monkeypatch.setenv("LENSDIFF_FIGURES", str(tmp_path / "figures"))
    (tmp_path / "figures").mkdir()
    helpers.keep(tmp_path / "film.gif", "a.gif")
    helpers.keep(plt.figure(), "b.png")
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == ["a.gif", "b.png"]
    assert (tmp_path / "figures" / "a.gif").read_bytes() == b"GIF89a"


def test_keep_leaves_a_file_that_looks_the_same(tmp_path, monkeypatch):
    monkeypatch.setenv("LENSDIFF_FIGURES", str(tmp_path))
    made, ax = plt.subplots()
    helpers.keep(made, "b.png")
    small = (tmp_path / "b.png").read_bytes() + b"\0"  # looks the same, and is other bytes
    (tmp_path / "b.png").write_bytes(small)
    helpers.keep(made, "b.png")
    assert (tmp_path / "b.png").read_bytes() == small
    ax.plot([0, 1])
    helpers.keep(made, "b.png")
    assert (tmp_path / "b.png").read_bytes() != small


def test_computed_numbers_are_said_and_tabled(monkeypatch):
    shown = []
    monkeypatch.setattr(helpers, "display", lambda made: shown.append(made.data))
    helpers.say("It is {d:.2f}, so ${{x}}$.", d=0.126)
    helpers.table([("a", 1), ("b", 2.5)], ("name", "value"))
    assert shown[0] == "It is 0.13, so ${x}$."
    assert shown[1] == "| name | value |\n| --- | --- |\n| a | 1 |\n| b | 2.5 |"
    helpers.table([("|x|", 1)], ("name", "value"))
    assert shown[2].endswith("| \\|x\\| | 1 |")  # not four cells
    with pytest.raises(ParameterError, match="A row has 1 cells, the table 2"):
        helpers.table([("a",)], ("name", "value"))


def test_a_model_that_draws_nothing_or_in_other_numbers_is_one_sentence():
    pixels = SimpleNamespace(denoiser=1, autoencoder=None, folder=Path("a/pixels"))
    latents = SimpleNamespace(denoiser=1, autoencoder=1, folder=Path("a/latents"))
    for model, kind in ((pixels, None), (pixels, False), (latents, None), (latents, True)):
        assert helpers.drawing_model(model, kind) is model
    with pytest.raises(ParameterError, match=r"A SimpleNamespace draws no images. .* lens150"):
        helpers.drawing_model(SimpleNamespace())
    with pytest.raises(ParameterError, match=r"latents denoises latents. Give one of pixels"):
        helpers.drawing_model(latents, latents=False)
    with pytest.raises(ParameterError, match=r"pixels denoises pixels. Give one of latents, as x "):
        helpers.drawing_model(pixels, latents=True, like="x")
