"""Parameters are checked by their lesson's rules, and what is passed from outside comes last."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import nbformat
import papermill
import pytest

from lensdiff.errors import ParameterError
from lensdiff.notebook import parameters, times
from lensdiff.notebook.lessons import lesson
from lensdiff.notebook.parameters import start
from lensdiff.notebook.rules import SEED, Choice, Flag, Number, Place, Text

GOOD = {
    "profile": "smoke",
    "train_seconds": 1,
    "learning_rate": 2e-3,
    "sigma": 0.5,
    "seed": 3,
    "image_size": 64,
    "width": 48,
    "blocks": 2,
    "unshuffle": 2,
    "embedding": "add",
    "skip_updates": 0,
}


@pytest.fixture(autouse=True)
def _runs(tmp_path, monkeypatch):
    monkeypatch.setenv("LENSDIFF_RUNS", str(tmp_path))


@pytest.mark.parametrize(
    "rule, value, checked",
    [
        (Number(0, 1), 0.5, 0.5),
        (Number(0, 10, whole=True), 3.0, 3),
        (Choice("a", "b"), "b", "b"),
        (Choice(1, 2, 4), 2.0, 2),
        (Flag(), False, False),
        (Place(), "lens64", "lens64"),
        (Text(), "", ""),
        (SEED, 2**31, 2**31),
        (Number(0, 10, whole=True, least=4), 0, 0),
        (Number(0, 10, whole=True, least=4), 4, 4),
    ],
)
def test_a_rule_lets_a_good_value_pass(rule, value, checked):
    found = rule.check("x", value)
    assert found == checked and type(found) is type(checked)


@pytest.mark.parametrize(
    "rule, value, sentence",
    [
        (Number(0, 1), 2, "x is 2; it must be a number from 0 to 1."),
        (Number(0, 1), float("nan"), "x is nan; it must be a number from 0 to 1."),
        (Number(0, 10, whole=True, least=4), 3, "x is 3; it must be 0, or at least 4."),
        (SEED, 0.5, "x is 0.5; it must be a whole number from 0 to 2,147,483,648."),
        (Number(16, 64, True, multiple=16), 20, "x is 20; it must be a multiple of 16."),
        (Choice("a", "b"), "c", "x is 'c'; it must be one of 'a', 'b'."),
        (Choice("a", "b"), ["a"], "x is ['a']; it must be one of 'a', 'b'."),
        (Choice(1, 2), True, "x is True; it must be one of 1, 2."),
        (Flag(), 1, "x is 1; it must be True or False."),
        (Place(), 3, "x is 3; give a path or a name in quotes."),
        (Text(), None, "x is None; it must be text in quotes."),
    ],
)
def test_a_rule_says_what_a_wrong_value_must_be(rule, value, sentence):
    with pytest.raises(ParameterError) as caught:
        rule.check("x", value)
    assert str(caught.value) == sentence


def test_a_start_checks_and_prints(tmp_path, capsys):
    run = start("02", {**GOOD, "other": object()})
    assert (run.profile, run.smoke, run.seed, run.embedding) == ("smoke", True, 3, "add")
    assert run.results == tmp_path / "02" and run.results.is_dir() and run.device in ("cpu", "cuda")
    assert run.scaled(1, 2, 3) == 1
    shown = capsys.readouterr().out
    assert "torch" in shown and "profile smoke" in shown and "Run time" not in shown
    with pytest.raises(FrozenInstanceError):
        run.seed = 4
    with pytest.raises(AttributeError, match="no parameter named 'sed'"):
        _ = run.sed


def test_the_recorded_run_time_is_printed_where_there_is_one(monkeypatch, capsys):
    monkeypatch.setattr(times, "expected", lambda notebook: {"bf16": 60.0})
    monkeypatch.setattr(times, "sentence", lambda notebook: "Run time of a minute.")
    start("02", {**GOOD, "profile": "standard"})
    assert "Run time of a minute." in capsys.readouterr().out
    monkeypatch.setattr(times, "expected", lambda notebook: {})
    start("02", {**GOOD, "profile": "standard"})
    assert "Run time" not in capsys.readouterr().out


def test_a_wrong_or_missing_parameter_is_named():
    assert set(GOOD) == {"profile", *lesson("02").PARAMETERS}
    with pytest.raises(ParameterError, match="sigma is 'high'"):
        start("02", {**GOOD, "sigma": "high"})
    with pytest.raises(ParameterError, match="profile is 'fast'"):
        start("02", {**GOOD, "profile": "fast"})
    with pytest.raises(ParameterError, match="seed is not set; run the cells"):
        start("02", {name: value for name, value in GOOD.items() if name != "seed"})
    with pytest.raises(ParameterError, match=r"no lesson '99'; there are .*02"):
        start("99", GOOD)


def page(path) -> None:
    """A page with the two cells of parameters and the place for those from outside."""

    def code(source: str, *tags: str) -> nbformat.NotebookNode:
        return nbformat.v4.new_code_cell(source, metadata={"tags": list(tags)})

    names = list(GOOD)
    first = [f"{name} = {GOOD[name]!r}" for name in names[:5]]
    second = ["# for experts:", *(f"{name} = {GOOD[name]!r}" for name in names[5:])]
    cells = [
        code("\n".join(first), "parameters"),
        code("\n".join(second), "parameters"),
        code("", "injected-parameters"),
        code('from lensdiff.notebook import start\nrun = start("02", globals())'),
        code("print(run.seed, run.width, run.blocks)"),
    ]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)


def test_papermill_puts_its_values_after_both_cells(tmp_path, monkeypatch):
    monkeypatch.setenv("LENSDIFF_QUIET", "1")
    page(tmp_path / "page.ipynb")
    options = {"kernel_name": "python3", "language": "python", "progress_bar": False}
    passed = {"seed": 7, "width": 32}
    made = papermill.execute_notebook(
        str(tmp_path / "page.ipynb"), str(tmp_path / "out.ipynb"), passed, **options
    )
    assert made.cells[-1].outputs[0].text == "7 32 2\n"
    tags = [cell.metadata.get("tags") for cell in made.cells]
    assert tags.index(["injected-parameters"]) == 2 and len(made.cells) == 5


def test_the_values_are_kept_by_name():
    run = parameters.Run("full", False, "cpu", parameters.Path("."), {"steps": 3})
    assert run.steps == 3 and run.scaled("a", "b", "c") == "c"
