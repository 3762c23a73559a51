"""Checkers accept the right answer, refuse wrong ones, and never hold the answer itself."""

import re

import pytest

from workbench.exercises import evaluation, features, tour, training, world
from workbench.exercises.exercise import Exercise
from workbench.exercises.keys import key, seal


def exercise(checker, **options):
    return Exercise(id="demo", question="?", checker=checker, hints=("nudge", "hint", "nearly"), **options)


@pytest.mark.parametrize(
    ("sealed", "right", "wrong"),
    [
        ("Oslo", ["oslo", " OSLO "], ["Bergen", "Osl", ""]),
        ("the red dragon", ["The  red dragon"], ["the dragon", "thereddragon"]),
        (17, [17, 17.0, "17"], [16, 18, -17, "seventeen"]),
        (True, [True], [False]),
        ([3, "b"], [[3, "b"], (3, "B")], [["b", 3], [3], "3b"]),
        ({"cat", "dog"}, [{"dog", "cat"}, {"Cat", "DOG"}], [{"cat"}, {"cat", "dog", "bird"}]),
    ],
)
def test_a_key_takes_the_answer_and_refuses_others(sealed, right, wrong):
    asked = exercise(key("demo", seal("demo", sealed)))
    for answer in right:
        assert asked.check(answer), answer
    for answer in wrong:
        verdict = asked.check(answer)
        assert not verdict, answer
        assert str(verdict).startswith("Not yet: ")
        assert "hint(1)" in str(verdict)


@pytest.mark.parametrize("truth", [0.0, 0.37, -4.1, 0.05, 123.4])
def test_a_measured_number_is_right_within_its_tolerance_and_wrong_beyond_twice_that(truth):
    asked = exercise(key("demo", seal("demo", truth, within=0.1), within=0.1))
    for error in (0.0, 0.09, -0.09, 0.05):
        assert asked.check(truth + error)
    assert asked.check(str(truth))
    for error in (0.21, -0.21, 5.0):
        assert not asked.check(truth + error)


def test_the_digest_gives_nothing_away_and_is_salted():
    one, two = seal("one", "Oslo"), seal("two", "Oslo")
    assert re.fullmatch("[0-9a-f]{64}", one)
    assert one != two
    assert not exercise(key("two", one)).check("Oslo")


@pytest.mark.usefixtures("as_user")
def test_answers_of_the_wrong_kind_are_met_by_a_sentence():
    plain = exercise(key("demo", seal("demo", 3)))
    with pytest.raises(TypeError, match="An answer is a text, a number, or a list or set of them, got dict"):
        plain.check({})
    measured = exercise(key("demo", seal("demo", 3.0, within=0.5), within=0.5))
    with pytest.raises(TypeError, match="The answer must be a number, got 'many'"):
        measured.check("many")
    with pytest.raises(ValueError, match="one of 'yes', 'no', got 'maybe'"):
        exercise(lambda answer: "", choices=("yes", "no")).check("maybe")


def test_a_checker_may_run_what_the_reader_wrote():
    def doubles(function):
        wrong = next((n for n in (0, 1, -3) if function(n) != 2 * n), None)
        return "" if wrong is None else f"of {wrong} it makes {function(wrong)}, not {2 * wrong}."

    asked = exercise(doubles)
    assert asked.check(lambda n: n + n)
    assert repr(asked.check(lambda n: n)) == "Not yet: of 1 it makes 1, not 2. For help: .hint(1), .hint(2), .hint(3)."
    assert not asked.check(lambda n: n * n)


def test_hints_are_three_in_order():
    asked = exercise(lambda answer: "")
    assert [asked.hint(step) for step in (1, 2, 3)] == ["nudge", "hint", "nearly"]
    with pytest.raises(ValueError, match="There are hints 1, 2 and 3, got 4"):
        asked.hint(4)


@pytest.mark.parametrize(
    ("exercise", "right"),
    [
        (tour.KEPT, "less than a twentieth"),
        (tour.CONTROL, "it hardly moves"),
        (world.CEILING, "no better than a coin"),
        (world.VARIANCE, "the linear one"),
        (training.FOUND, "TopK, which leaves more"),
        (training.SHUFFLED, "several times as much"),
        (training.PARENT, "more than half of the time"),
        (evaluation.RECOVERED, "more than nine tenths"),
        (evaluation.BITS, "more than twice as much"),
        (evaluation.ABSORBED, "the neurons"),
        (evaluation.SWAP, "hardly ever"),
        (features.ILLUSION, "about a quarter"),
        (features.RANDOM, "nearly as often as with features"),
        (features.LOST, "less than a quarter"),
    ],
)
def test_the_exercises_of_notebooks_know_right_from_wrong(exercise, right):
    wrong = [choice for choice in exercise.choices if choice != right]
    assert len(wrong) >= 2
    assert exercise.check(right)
    assert not any(exercise.check(choice) for choice in wrong)
    assert len({exercise.hint(step) for step in (1, 2, 3)}) == 3
    with pytest.raises(ValueError, match="The answer must be one of"):
        exercise.check("42")
