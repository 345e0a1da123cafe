"""The checker itself: what it says, what it survives, and that nothing of the course is within reach."""

from __future__ import annotations

import json
import math
import re
import time
from html import unescape
from pathlib import Path
from random import Random

import numpy as np
import pytest

from lessonlib.checks import EXERCISES, check, runner
from lessonlib.checks.mutants import read_all
from lessonlib.checks.precision import lost_digits
from lessonlib.checks.report import Result
from lessonlib.checks.sandbox.child import MAX_ITEMS, TooLarge, decode, encode
from lessonlib.checks.sandbox.process import Child
from lessonlib.checks.spec import Exercise, WrongForm
from lessonlib.errors import CourseError
from lessonlib.trace import Trace
from lessonlib.viz import play
from lessonlib.viz.ride import Ride

SOLUTIONS = Path(__file__).parents[1] / "solutions"
MAY_BE_EMPTY = "ex06.2"
WITHIN_A_SHARE = "ex07.3"  # of the promises that the best settings found keep
ONE_FOR_EACH = "ex02.4"  # a list with an item a request
TASKS = [task for exercise in EXERCISES.values() for task in exercise.tasks]


def told(tmp_path: Path, source: str, task: str = "ex01.1", **options):
    """The result for a file that holds only `source`."""
    (tmp_path / f"{task.split('.')[0]}.py").write_text(source, encoding="utf-8")
    (result,) = check(task, folder=tmp_path, **options).results
    return result


def static(body: str) -> str:
    return f"def static_utilization(lengths, slots):\n    {body}\n"


# ----- what is told -----


def test_a_wrong_answer_is_told_on_the_smallest_case(tmp_path: Path) -> None:
    result = told(tmp_path, static("return sum(lengths) / (len(lengths) * max(lengths))"), seed=7)
    assert result.message.splitlines() == [
        "must hold  a slot that nobody boarded is paid for as well",
        "the call   static_utilization(lengths=[1], slots=2)",
        "came back  1.0",
        "was due    0.5: 1 token ÷ (2 slots × 1 step)",
        "seed       7 draws the same inputs again",
    ]


def test_a_mistake_that_only_large_inputs_show_is_made_small(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(runner, "SHRINK_SECONDS", 60.0)  # on a machine that is busy with other tests
    wrong = "\n\ndef drain(lengths, slots, right=drain):\n    return right(lengths[:6], slots)\n"
    source = (SOLUTIONS / "ex01.py").read_text(encoding="utf-8") + wrong
    result = told(tmp_path, source, "ex01.3", seed=1)
    assert result.status == "failed"
    assert result.call == "drain(lengths=[1, 1, 1, 1, 1, 1, 1], slots=1)"


def test_an_error_of_the_students_own_is_no_limit(tmp_path: Path) -> None:
    result = told(tmp_path, static('raise MemoryError("no free block")'))
    assert result.property_name == runner.RAISES_NOTHING
    assert result.sentence.startswith("It raised MemoryError: no free block, at line 2")


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("return lengths[9]", "It raised IndexError: list index out of range, at line 2 of ex01.py, `return"),
        ("return 1 / 0", "It raised ZeroDivisionError: division by zero, at line 2"),
        ("return static_utilization(lengths, slots)", "It raised RecursionError"),
        ("raise SystemExit(0)", "It raised SystemExit: 0"),
        ("import os; os._exit(0)", "The call ended Python itself (exit code 0)."),
        ("import os; os._exit(201)", "The call ended Python itself (exit code 201)."),
        ("import os; os.kill(os.getpid(), 40)", "The call ended Python itself (signal 40)."),
        ("import os; os.kill(os.getpid(), 11)", "The call ended Python itself (signal SIGSEGV)."),
        ("lengths.append(3); return 1.0", "It changed its input lengths from [1] to [1, 3]."),
        ("return None", "It returned nothing. Is a `return` missing?"),
        ("print(1.0)", "It printed something and returned nothing."),
        ("return '1.0'", "The utilization should be a number; '1.0' is a string."),
        ("return True", "The utilization should be a number; True is a truth value."),
        ("return [1.0]", "The utilization should be a number; [1.0] is a list."),
        ("return lambda: 1.0", "is a function."),
        ("return float('nan')", "The utilization should be a finite number, not nan"),
        ("return [1] * 1_000_000", "The answer is too large to look at: more than 20,000 items."),
        ("return b'x' * 50_000_000", "The utilization should be a number"),
        ("return bytearray(8 << 30)", "It used up the memory that it may have (MemoryError, at line 2"),
        ("raise NotImplementedError", "Your lines go to line 2 of ex01.py."),
    ],
)
def test_each_mishap_has_its_own_sentence(tmp_path: Path, body: str, sentence: str) -> None:
    result = told(tmp_path, static(body))
    assert sentence in result.message
    assert len(result.message) < 2_000


def test_an_endless_loop_ends_in_its_limit(tmp_path: Path) -> None:
    started = time.monotonic()
    result = told(tmp_path, static("\n    while True:\n        print('round and round')"), call_seconds=0.5)
    assert result.sentence == "No answer within 0.5 seconds. Does one of its loops never end?"
    assert result.call == "static_utilization(lengths=[1], slots=1)"
    assert time.monotonic() - started < 10


def test_calls_that_dawdle_end_in_the_tasks_limit(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(runner, "TASK_SECONDS", 1.0)
    slow = "\n\ndef drain(*what, right=drain):\n    import time; time.sleep(0.6)\n    return right(*what)\n"
    result = told(tmp_path, (SOLUTIONS / "ex01.py").read_text(encoding="utf-8") + slow, "ex01.3")
    assert result.sentence == "All calls together took more than 1 seconds."


def test_the_next_task_is_checked_after_a_hang(tmp_path: Path) -> None:
    source = (SOLUTIONS / "ex01.py").read_text(encoding="utf-8")
    (tmp_path / "ex01.py").write_text(source + "\n\n" + static("while True: pass"))
    report = check("ex01", folder=tmp_path, call_seconds=0.3)
    assert [result.status for result in report.results] == ["failed", "passed", "passed"]


def test_a_flood_of_prints_is_harmless(tmp_path: Path) -> None:
    flood = "\n\ndef step(*state, right=step):\n    print('x' * 10_000_000)\n    return right(*state)\n"
    source = (SOLUTIONS / "ex02.py").read_text(encoding="utf-8") + flood
    assert told(tmp_path, source, "ex02.2").status == "passed"


def test_writing_to_file_descriptors_does_not_forge_an_answer(tmp_path: Path) -> None:
    forged = b'{"id": 2, "answer": 1.0, "printed": ""}\n'
    body = f"\n    import os\n    for fd in (1, 2): os.write(fd, {forged!r})\n    return 2.0"
    assert told(tmp_path, static(body)).came_back == "2.0"


def test_a_part_that_is_not_written_is_named_where_it_is_called(tmp_path: Path) -> None:
    stub = "\n\ndef refill(*state):\n    raise NotImplementedError\n"
    result = told(tmp_path, (SOLUTIONS / "ex02.py").read_text(encoding="utf-8") + stub, "ex02.3")
    assert result.status == "not written"
    assert result.sentence.startswith("It calls refill, which is not written yet.")


def test_a_wrong_part_is_named_where_it_is_built_on(tmp_path: Path) -> None:
    wrong = (
        "\n\ndef step(occupant, remaining, right=step):\n    return (*right(occupant, remaining)[:2], 1)\n"
    )
    (tmp_path / "ex02.py").write_text((SOLUTIONS / "ex02.py").read_text(encoding="utf-8") + wrong)
    static = next(result for result in check("ex02", folder=tmp_path).results if result.id == "ex02.3")
    assert static.status == "failed"
    assert static.sentence == "It is built on ex02.2, still wrong: begin there."


def test_parts_are_counted_in_helpers_too_and_a_wrong_part_still_has_the_blame(tmp_path: Path) -> None:
    right = (SOLUTIONS / "ex02.py").read_text(encoding="utf-8")
    helper = (
        "\n\ndef _next(occupant, remaining):\n    return step(occupant=occupant, remaining=remaining)\n"
        "\n\ndef static_batching(lengths, slots):\n"
        "    state, waiting, steps = (np.full(slots, NOBODY), np.zeros(slots, int)), list(range(len(lengths))), 0\n"
        "    while waiting or (state[0] != NOBODY).any():\n"
        "        if (state[0] == NOBODY).all():\n"
        "            *state, waiting = refill(*state, waiting, lengths)\n"
        "        *state, _ = _next(*state)\n        steps += 1\n"
        "    return steps, int(lengths.sum()) / (slots * steps)\n"
    )
    assert told(tmp_path, right + helper, "ex02.3").status == "passed"

    formula = read_all(SOLUTIONS / "mutants")["ex02.3"]["closed_form"].file(SOLUTIONS)
    result = told(tmp_path, formula, "ex02.3")
    assert result.came_back == "0 calls of refill and 0 calls of step"
    assert result.due == "at least 1 call of refill and 1 call of step"


def test_numpy_numbers_are_numbers(tmp_path: Path) -> None:
    right = (SOLUTIONS / "ex02.py").read_text(encoding="utf-8")
    numpy_too = (
        "\n\ndef static_batching(lengths, slots, right=static_batching):\n"
        "    steps, utilization = right(lengths, slots)\n"
        "    return [np.int32(steps), np.float64(utilization)]\n"
    )
    assert told(tmp_path, right + numpy_too, "ex02.3").status == "passed"


@pytest.mark.parametrize(("task", "star"), [("ex01.3", "math"), ("ex02.2", "numpy")])
def test_a_right_answer_below_a_star_import_passes(tmp_path: Path, task: str, star: str) -> None:
    """However many names come with it, the functions of the exercise are looked up."""
    right = (SOLUTIONS / f"{task.split('.')[0]}.py").read_text(encoding="utf-8")
    assert told(tmp_path, f"from {star} import *\n{right}", task).status == "passed"


def test_what_is_imported_is_no_function_of_the_students_own(tmp_path: Path) -> None:
    source = "from math import *\ndef static_utilisation(): ...\ndef drain(): ...\n"
    result = told(tmp_path, source)
    assert "ex01.py has no function static_utilization: it has drain, static_utilisation." in result.message


@pytest.mark.parametrize(
    ("answer", "expected", "sentence"),
    [
        (0.3333, 1 / 3, "0.3333 is 0.3333333333333333 rounded: leave the number as it is."),
        ((2, 0.67), (2, 2 / 3), "0.67 is 0.6666666666666666 rounded: leave the number as it is."),
        ([(2.0, 1.0)], [(2.0, 1.75)], "1.0 is 1.75 without what is behind the point"),
        (
            np.float32(np.ones(2) / 3).astype(float),
            np.ones(2) / 3,
            "has fewer digits than 0.3333333333333333",
        ),
        ((1, 0.3333), (2, 1 / 3), ""),  # something else is wrong as well
        (0.3, 1 / 3, ""),
        (0.5, 1 / 3, ""),
        ([0.5], [0.5, 0.5], ""),
        (math.nan, 0.5, ""),
        (0.0, math.inf, ""),
        (np.array([-1.0]), np.array([-0.5]), ""),  # whole by chance
        ((1.0, np.array([-2.0])), (1.3, np.array([-1.9])), ""),
    ],
)
def test_lost_digits_are_told_from_a_wrong_answer(answer, expected, sentence: str) -> None:
    found = lost_digits(answer, expected)
    assert sentence in found if sentence else not found


# ----- what cannot be checked -----


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        (
            "x = (1,\n",
            "cannot be loaded: SyntaxError: '(' was never closed, at line 1 of ex01.py, `x = (1,`.",
        ),
        (
            "x = 1\ny = x.z\n",
            "AttributeError: 'int' object has no attribute 'z', at line 2 of ex01.py, `y = x.z`.",
        ),
        ("import torch\n", "While it is checked, it may import the standard library, and nothing else."),
        ("def static_utilisation(): ...\n", "it has static_utilisation. Was it renamed?"),
        ("", "ex01.py has no function static_utilization: it has no function."),
        ("import os; os._exit(3)\n", "ended Python while it was loaded (exit code 3)"),
        ("raise SystemExit\n", "cannot be loaded: SystemExit, at line 1"),
    ],
)
def test_a_file_that_cannot_be_loaded_is_an_error(tmp_path: Path, source: str, sentence: str) -> None:
    result = told(tmp_path, source)
    assert result.status == "error"
    assert sentence in result.message


def test_a_file_that_is_not_utf8_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "ex01.py").write_bytes(b"x = '\xff'\n")
    report = check("ex01", folder=tmp_path)
    assert report.exit_code == 2
    assert "SyntaxError" in report.results[0].message


def test_unknown_ids_and_missing_files_say_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(CourseError, match=r"unknown exercise 'ex99': there is ex01, .*, ex01\.1, .*ex05\.3"):
        check("ex01", "ex99")
    with pytest.raises(CourseError, match="no folder"):
        check("ex01", folder=tmp_path / "nowhere")
    (tmp_path / "ex1.py").write_text("")
    with pytest.raises(CourseError, match=r"no file ex01\.py in .*: there is ex1\.py"):
        check("ex01", folder=tmp_path)


def test_a_missing_file_does_not_keep_the_others_from_being_checked(tmp_path: Path) -> None:
    (tmp_path / "ex02.py").write_text((SOLUTIONS / "ex02.py").read_text(encoding="utf-8"))
    report = check("ex01.1", "ex02.1", folder=tmp_path)
    assert [result.status for result in report.results] == ["error", "passed"]
    assert report.results[0].sentence == f"There is no ex01.py in {tmp_path.name}: there is ex02.py."
    assert report.exit_code == 2


def test_the_folder_is_found_from_a_folder_below(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "exercises").mkdir()
    (tmp_path / "exercises" / "ex01.py").write_text(static("return 0.0"))
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    assert check("ex01.1").results[0].status == "failed"


# ----- the report -----


def words(html: str) -> list[str]:
    return unescape(re.sub(r"<[^>]*>", " ", html)).split()


def test_a_notebook_shows_the_same_words_as_a_terminal(tmp_path: Path) -> None:
    source = (
        static("return '<b>' if slots > 1 else 1.0")
        + "def drain(lengths, slots):\n    raise NotImplementedError\n"
    )
    (tmp_path / "ex01.py").write_text(source)
    report = check("ex01", folder=tmp_path)
    assert [result.status for result in report.results] == ["failed", "error", "not written"]
    assert words(report._repr_html_()) == str(report).split()


def test_a_report_is_plain_json_with_its_seed(tmp_path: Path) -> None:
    (tmp_path / "ex01.py").write_text(static("return 2.0"))
    report = check("ex01.1", folder=tmp_path)
    data = json.loads(json.dumps(report.to_dict()))
    assert data["exit_code"] == 1
    assert data["seed"] == data["results"][0]["seed"] == report.seed
    keys = {"id", "title", "status", "property", "message", "tier", "seed"}
    assert keys <= data["results"][0].keys()
    assert data["results"][0]["tier"] == "python"


def test_a_seed_repeats_a_check_and_without_one_inputs_are_fresh(tmp_path: Path) -> None:
    late = static("return 2.0 if len(lengths) > 4 else right(lengths, slots)")
    source = (
        (SOLUTIONS / "ex01.py").read_text(encoding="utf-8") + "\n\nright = static_utilization\n\n\n" + late
    )
    (tmp_path / "ex01.py").write_text(source)
    reports = [check("ex01.1", folder=tmp_path, seed=seed) for seed in (5, 5)]
    assert str(reports[0]) == str(reports[1])
    assert check("ex01.1", folder=tmp_path).seed != check("ex01.1", folder=tmp_path).seed


def test_a_failing_ride_is_saved_and_plays_in_the_elevator(tmp_path: Path) -> None:
    """What came back beside what was due, on the smallest case; where the answer is no car, what was due alone."""
    lowest = "free = np.flatnonzero(occupant == NOBODY)"
    right = (SOLUTIONS / "ex02.py").read_text(encoding="utf-8")
    (tmp_path / "ex02.py").write_text(right.replace(lowest, f"{lowest}[::-1]"))
    report = check("ex02.1", folder=tmp_path)
    assert list(report.rides) == ["ex02.1 came back", "ex02.1 was due"]
    came, due = (Ride.from_trace(trace, "") for trace in report.rides.values())
    assert [rider and rider.request for rider in came.frame(1).riders] == [None, 0]
    assert [rider and rider.request for rider in due.frame(1).riders] == [0, None]

    assert [path.name for path in report.save_rides(tmp_path / "rides")] == [
        "ex02.1-came-back.json",
        "ex02.1-was-due.json",
    ]
    assert Trace.load(tmp_path / "rides" / "ex02.1-was-due.json").same_ride(report.rides["ex02.1 was due"])
    again = Result.from_dict(json.loads(json.dumps(report.results[0].to_dict())))
    assert again == report.results[0]
    assert again.rides["came back"].same_ride(report.rides["ex02.1 came back"])

    elevator = play(report)
    assert elevator is not None
    assert list(elevator.traces) == list(report.rides)
    assert play(check("ex02.2", folder=tmp_path)) is None

    (tmp_path / "ex02.py").write_text(
        right
        + "\n\ndef refill(occupant, remaining, waitlist, lengths):\n    return occupant, remaining, [7, 7]\n"
    )
    assert list(check("ex02.1", folder=tmp_path).rides) == ["ex02.1 was due"]


def test_what_is_written_counts_so_far(tmp_path: Path) -> None:
    """A task that is not written is no failure; one that is wrong, or a file that is not there, still is."""
    unwritten = "\n\ndef drain(lengths, slots):\n    raise NotImplementedError\n"
    (tmp_path / "ex01.py").write_text((SOLUTIONS / "ex01.py").read_text(encoding="utf-8") + unwritten)
    codes = lambda *ids: [(each := check(*ids, folder=tmp_path)).exit_code, each.exit_code_so_far]  # noqa: E731
    assert codes("ex01") == [1, 0]
    assert codes("ex01", "ex02") == [2, 2]
    (tmp_path / "ex01.py").write_text(static("return 2.0") + unwritten)
    assert codes("ex01.1", "ex01.3") == [1, 1]


def test_several_ids_keep_the_order_of_the_course() -> None:
    report = check("ex02.2", "ex01", folder=SOLUTIONS)
    assert [result.id for result in report.results] == ["ex01.1", "ex01.2", "ex01.3", "ex02.2"]


# ----- the specs -----


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.id)
def test_properties_leave_only_the_due_answer(task) -> None:
    """Any answer that is not the due one breaks a property; the due one breaks none."""
    rng = Random(task.id)
    for given in task.cases(rng):
        due = task.expected(**given)
        assert all(property_.holds(given, due, due) for property_ in task.properties)
        wrong = far_off(due) if task.id == WITHIN_A_SHARE else disturbed(due, rng, _step(task, due))
        assert not all(property_.holds(given, wrong, due) for property_ in task.properties), (given, wrong)


def _step(task, due) -> float:
    """A change that no property may pass. A speed and a prediction are given some room."""
    if task.id == "ex06.3":
        return due / 2
    return 0.01 if task.speed is None else 1.0


def far_off(due):
    """Settings that keep half of the promises that the expected ones keep."""
    return due._replace(outcome=due.outcome._replace(kept=due.outcome.kept // 2))


def disturbed(answer, rng: Random, step: float):
    """An answer with one of its numbers changed, floats by `step`, or one more where it has none."""
    if isinstance(answer, np.ndarray):
        return np.array(disturbed(answer.tolist(), rng, step))
    if isinstance(answer, float) and math.isinf(answer):
        return 0.0
    if answer is None or answer == []:
        return [1]
    if isinstance(answer, str):
        return f"{answer}0"
    if isinstance(answer, dict):
        name = rng.choice([name for name, part in answer.items() if part != []])
        return {**answer, name: disturbed(answer[name], rng, step)}
    if isinstance(answer, float | int):
        return answer + rng.choice((-step, step) if isinstance(answer, float) else (-1, 1))
    places = [place for place, part in enumerate(answer) if not isinstance(part, list) or part]
    place = rng.choice(places or [len(answer) - 1])
    parts = list(answer)
    parts[place] = disturbed(parts[place], rng, step)
    return type(answer)(*parts) if hasattr(answer, "_fields") else type(answer)(parts)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.id)
def test_no_other_kind_of_answer_is_read(task) -> None:
    first, *_, last = task.cases(Random(0))
    given = last if task.id == ONE_FOR_EACH else first  # (1,) answers its first
    for answer in (
        None,
        "1",
        {},
        [],
        (),
        np.zeros((2, 2)),
        (1,),
        ("a", "b"),
        ([], 1, []),
        {1: 2},
        np.array([]),
    ):
        if task.id == MAY_BE_EMPTY and isinstance(answer, list | tuple) and not answer:
            continue
        with pytest.raises(WrongForm, match=r"^\S.*[.?]$"):
            task.read(answer, given)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.id)
def test_smaller_inputs_are_valid_and_come_to_an_end(task) -> None:
    given = list(task.cases(Random(1)))[-1]
    for _ in range(2_000):
        task.expected(**given)
        smaller = next(task.smaller(given), None)
        if smaller is None:
            return
        given = smaller
    pytest.fail("the inputs never stop shrinking")


# ----- the child -----


def test_nothing_of_the_course_is_within_reach_of_the_child(tmp_path: Path) -> None:
    (tmp_path / "reach.py").write_text(
        "import importlib.util, os, sys\n"
        "def found(names):\n"
        "    return [name for name in names if importlib.util.find_spec(name)]\n"
        "def environment():\n"
        "    installed = [path for path in sys.path if 'site-packages' in path]\n"
        "    return sorted(os.environ), os.listdir('.'), installed\n",
        encoding="utf-8",
    )
    with Child(tmp_path / "reach.py", Exercise("reach", (), packages=("numpy",))) as child:
        assert child.load().functions == ("found", "environment")
        names = ["numpy", "json", "lessonlib", "solutions", "kernels", "torch", "hypothesis", "ex01"]
        assert child.call("found", [names], 5).answer == ["numpy", "json"]
        variables, files, installed = child.call("environment", [], 5).answer
    assert not {"PYTHONPATH", "VIRTUAL_ENV"} & set(variables)
    assert files == ["reach.py"]
    assert installed == []


def test_values_travel_both_ways() -> None:
    for value in (None, True, 3, 0.5, "é", [1, [2]], (1, (2,)), {1: "a"}, []):
        assert decode(json.loads(json.dumps(encode(value)))) == value
    for array in (np.array([], np.int64), np.array([[1.5], [2.5]], np.float32), np.array([True])):
        back = decode(json.loads(json.dumps(encode(array))))
        assert back.dtype == array.dtype
        assert np.array_equal(back, array)
    with pytest.raises(TooLarge):
        encode(np.zeros(MAX_ITEMS + 1))
    endless: list = []
    endless.append(endless)
    with pytest.raises(TooLarge):
        encode(endless)
