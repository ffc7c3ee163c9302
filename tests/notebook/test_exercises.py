"""Exercises: stored answers are right, wrong ones get their own hints, nothing stops a run."""

from __future__ import annotations

import ast
import builtins
import inspect
import json
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch

import lensdiff as ld
from lensdiff.errors import ParameterError
from lensdiff.notebook import exercises
from lensdiff.notebook.exercises import Exercise, alike
from lensdiff.notebook.lessons import LESSONS, lesson
from lensdiff.storage import root

STORED = {
    f"{notebook}.{k}": exercise
    for notebook in LESSONS
    for k, exercise in lesson(notebook).EXERCISES.items()
}
stored = pytest.mark.parametrize("name", STORED)


@stored
def test_the_stored_answer_is_right_and_says_why(name, capsys):
    exercise = STORED[name]
    ld.check(name, exercise.answer)
    assert capsys.readouterr().out == f"{name} right: {exercise.explanation.splitlines()[0]}\n"


@stored
def test_an_answer_may_be_rounded_to_two_or_three_digits(name, capsys):
    exercise = STORED[name]
    if isinstance(exercise.answer, float):
        for digits in (2, 3, 6):
            short = float(f"{exercise.answer:.{digits}g}")
            if digits > 2 or float(f"{exercise.answer:.3g}") != exercise.answer:
                ld.check(name, short)
                assert capsys.readouterr().out.startswith(f"{name} right: "), short


@stored
def test_each_wrong_answer_gets_its_own_hint(name, capsys):
    for wrong, hint in STORED[name].mistakes:
        ld.check(name, wrong)
        assert capsys.readouterr().out == f"{name} not yet: {hint}\n"


@stored
def test_five_mistakes_or_more_are_foreseen(name):
    exercise = STORED[name]
    assert len(exercise.mistakes) >= 5
    # another mistake gets the general hint, and no hint is the answer
    hints = [hint for _, hint in exercise.mistakes]
    assert exercise.hint not in hints and len(set(hints)) >= 5
    if not callable(exercise.answer):
        for hint in [exercise.hint, *hints]:
            assert str(exercise.answer) not in hint.replace(",", "").split()


@pytest.mark.parametrize("notebook", LESSONS)
def test_a_lesson_has_four_to_six_exercises(notebook):
    numbers = list(lesson(notebook).EXERCISES)
    assert numbers == list(range(1, len(numbers) + 1)) and 4 <= len(numbers) <= 6


def raises(x):
    raise RuntimeError("no idea.")


class Unspeakable(Exception):
    def __str__(self):
        raise ValueError


def raises_unspeakably(x):
    raise Unspeakable


def leaves(x):
    sys.exit()


@pytest.mark.parametrize(
    "answer", [raises, raises_unspeakably, leaves, 4, "text", object(), lambda: 1, lambda x: None]
)
def test_no_answer_stops_a_run(answer, capsys):
    for name, exercise in STORED.items():
        if callable(exercise.answer):
            ld.check(name, answer)
            shown = capsys.readouterr().out
            assert shown.startswith(f"{name} not yet: ") and shown.endswith(f"{exercise.hint}\n")


def test_what_a_function_raised_is_shown(capsys):
    ld.check("02.4", raises)
    assert "checking it raised RuntimeError: no idea. " in capsys.readouterr().out
    ld.check("02.4", raises_unspeakably)
    assert "checking it raised Unspeakable. " in capsys.readouterr().out


def test_no_answer_and_no_exercise_are_told(capsys):
    ld.check("02.3", None)
    assert capsys.readouterr().out == "02.3 no answer yet.\n"
    ld.check("02.9", 3)
    assert capsys.readouterr().out == "There is no exercise '02.9'; try 02.1 to 02.5.\n"
    ld.check("three", 3)
    assert "There is no lesson 'three'" in capsys.readouterr().out
    with pytest.raises(ParameterError, match=r"no exercise '02\.x'"):
        ld.solution("02.x")


def test_a_solution_shows_the_answer_or_the_source_of_a_function(monkeypatch):
    shown = []
    monkeypatch.setattr(exercises, "display", lambda made: shown.append(made.data))
    ld.solution("02.3")
    ld.solution("02.4")
    assert shown[0].startswith("**02.3** `144`\n\n")
    assert "```python\ndef fold(x: torch.Tensor)" in shown[1] and shown[1].count("```") == 2


def names_of(page: Path) -> set[str]:
    """What a notebook has at hand at its end: imports, functions, classes, variables.

    What is assigned inside of a function or a class is not.
    """
    found = set(dir(builtins)) | {"__name__"}
    for cell in json.loads(page.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code" and "colab" not in cell["metadata"].get("tags", []):
            lines = "".join(cell["source"]).splitlines()
            tree = ast.parse("\n".join(line for line in lines if line[:1] not in "%!" or not line))
            nodes = list(tree.body)
            while nodes:
                node = nodes.pop()
                if not isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Lambda):
                    nodes += ast.iter_child_nodes(node)
                if isinstance(node, ast.Import | ast.ImportFrom):
                    found |= {(one.asname or one.name).split(".")[0] for one in node.names}
                elif isinstance(node, ast.FunctionDef | ast.ClassDef):
                    found.add(node.name)
                elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                    found.add(node.id)
    return found


@pytest.mark.parametrize("page", sorted((root() / "notebooks").glob("??_*.ipynb")), ids=str)
def test_a_solution_can_be_run_on_its_page(page):
    """The source that is shown needs nothing but what the page has."""
    known = names_of(page)
    for name, exercise in lesson(page.name[:2]).EXERCISES.items():
        if not callable(exercise.answer):
            continue
        tree = ast.parse(textwrap.dedent(inspect.getsource(exercise.answer)))
        nodes = list(ast.walk(tree))
        own = {node.arg for node in nodes if isinstance(node, ast.arg)}
        names = [node for node in nodes if isinstance(node, ast.Name)]
        own |= {node.id for node in names if isinstance(node.ctx, ast.Store)}
        own |= {node.name for node in nodes if isinstance(node, ast.FunctionDef)}
        used = {node.id for node in names}
        assert used <= known | own, (name, used - known - own)


def test_a_test_may_take_several_answers(capsys):
    even = Exercise(2, "It is even.", ((1, "odd"),), "divide", test=lambda a: a % 2 == 0)
    assert even.right(4) and not even.right(3)
    assert even.hint_for(1) == "odd" and even.hint_for(3) == "divide"


@pytest.mark.parametrize(
    "given, wanted",
    [
        (16, 16.0),
        (np.float32(0.2501), 0.25),
        (torch.tensor(3.0, requires_grad=True), 3),
        (" Heun ", "heun"),
        ((1, 2), [1, 2]),
        (torch.tensor([1, 2]), (1, 2)),
        (np.ones(3), torch.ones(3)),
        ({"a", "b"}, {"b", "a"}),
        (True, True),
        (0.0, 0),
    ],
)
def test_same_answers_are_alike(given, wanted):
    assert alike(given, wanted)


@pytest.mark.parametrize(
    "given, wanted",
    [
        (True, 1),
        (1, True),
        ("16", 16),
        (16, "16"),
        (0.251, 0.25),
        (float("nan"), 1),
        ([1, 2, 3], [1, 2]),
        (np.ones((1, 3)), np.ones(3)),
        (1.0, np.ones(3)),
        (object(), 3),
        (1e-3, 0),
        (None, 0),
    ],
)
def test_different_answers_are_not_alike(given, wanted):
    assert not alike(given, wanted)
