"""Exercises of pages that hold their own tests: an answer, its check, and wrong answers."""

from __future__ import annotations

from collections.abc import Callable


def check(answer: object, test: Callable[[object], bool], hint: str) -> Callable[[object], None]:
    """Check an exercise: None and a right answer are reported, a wrong one raises AssertionError.

    The error has the hint. Returns the check as a function of an answer, which `prove` calls with
    the stored answers.
    """

    def judge(given: object) -> None:
        try:
            right = bool(test(given))
        except Exception as error:  # a student's function may raise anything
            raise AssertionError(
                f"Not yet: checking it raised {type(error).__name__}: {error}. {hint}"
            ) from error
        assert right, f"Not yet. {hint}"

    if answer is None:
        print("No answer yet.")
    else:
        judge(answer)
        print("Right.")
    return judge


def prove(
    checks: list[Callable[[object], None]], answers: list[object], wrong: list[list[object]]
) -> None:
    """Raise AssertionError unless each stored answer passes its check and the wrong ones fail
    it.
    """
    for number, (judge, answer, mistakes) in enumerate(zip(checks, answers, wrong, strict=True), 1):
        judge(answer)
        assert mistakes, f"Exercise {number} has no wrong answer to try."
        for mistake in mistakes:
            try:
                judge(mistake)
            except AssertionError:
                continue
            raise AssertionError(f"Exercise {number} takes a wrong answer for right: {mistake!r}.")
    print(
        f"{len(answers)} stored answers pass their checks; {sum(map(len, wrong))} wrong ones fail."
    )
