"""Exercises of pages that hold their own tests: stored answers pass, wrong ones fail."""

from __future__ import annotations

import pytest

from lensdiff.notebook import proofs


def test_an_exercise_is_checked(capsys):
    proofs.check(None, lambda a: a == 3, "hint")
    proofs.check(3, lambda a: a == 3, "hint")
    assert capsys.readouterr().out == "No answer yet.\nRight.\n"
    with pytest.raises(AssertionError, match=r"Not yet\. hint"):
        proofs.check(4, lambda a: a == 3, "hint")


def test_stored_answers_must_pass_and_wrong_ones_fail(capsys):
    judge = proofs.check(None, lambda a: a(2) == 4, "hint")
    # one that can't be called as it should be, one that is no function
    mistakes = [lambda x: x, lambda: 4, 4]
    proofs.prove([judge], [lambda x: x * x], [mistakes])
    shown = capsys.readouterr().out
    assert shown == "No answer yet.\n1 stored answers pass their checks; 3 wrong ones fail.\n"
    with pytest.raises(AssertionError, match="Exercise 1 takes a wrong answer for right"):
        proofs.prove([judge], [lambda x: x * x], [[lambda x: x + 2]])
    with pytest.raises(AssertionError, match="Not yet"):
        proofs.prove([judge], [lambda x: x], [[3]])
    with pytest.raises(AssertionError, match="no wrong answer"):
        proofs.prove([judge], [lambda x: x * x], [[]])
    with pytest.raises(AssertionError, match=r"raised TypeError: .*hint"):
        proofs.check(3, lambda a: a(2) == 4, "hint")
