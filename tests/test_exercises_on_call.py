"""Exercise 07: what is told to whom, on many seeds; and settings for a promise."""

from __future__ import annotations

import runpy
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest
from command import lesson

from lessonlib.checks import check
from lessonlib.checks.ex07 import DIAGNOSIS, GUARD
from lessonlib.checks.ex07.choose import least_of
from lessonlib.checks.mutants import read_all
from lessonlib.incidents import FAULTS, incident, siblings, tickets
from lessonlib.incidents import service as served
from lessonlib.incidents.laws import broken
from lessonlib.incidents.load import LOADS
from lessonlib.incidents.pool import DESKS
from lessonlib.incidents.record import plain_record
from lessonlib.incidents.run import run
from lessonlib.incidents.service import KINDS, POLICIES, Settings
from lessonlib.incidents.tickets import drawn_for
from lessonlib.trace import Kind, Trace

SOLUTIONS = Path(__file__).parents[1] / "solutions"
EX07 = runpy.run_path(str(SOLUTIONS / "ex07.py"))
GALLERY = read_all(SOLUTIONS / "mutants")
OF_ADA = drawn_for("ada")


def told(folder: Path, source: str, task: str, seed: int = 0):
    """The result of the worked answer with `source` below it."""
    (folder / "ex07.py").write_text((SOLUTIONS / "ex07.py").read_text(encoding="utf-8") + "\n\n" + source)
    return check(task, folder=folder, seed=seed).results[-1]


# ----- tickets and the guard -----


def test_the_worked_answer_knows_its_three_causes_on_rides_that_it_has_not_seen() -> None:
    for fault in OF_ADA.values():
        for seed in range(15):
            found = incident(fault, Random(f"unseen {seed}"))
            assert EX07["diagnose"](found.record) == (fault.cause, pytest.approx(found.number), found.step)


def test_the_worked_guard_lets_every_sound_ride_by() -> None:
    for load in LOADS:
        for seed in range(15):
            drawn = load(Random(f"unseen {seed}"))
            assert EX07["is_sound"](plain_record(run(drawn), drawn)), (load.__name__, seed)


@pytest.mark.parametrize(
    "fault", [each for one in OF_ADA.values() for each in siblings(one.family)], ids=lambda f: f.cause
)
def test_the_worked_guard_stops_every_fault_that_breaks_its_laws(fault) -> None:
    for seed in range(10):
        assert not EX07["is_sound"](incident(fault, Random(f"unseen {seed}")).record), seed


def test_each_ticket_is_missed_by_a_plausible_guard_and_each_sibling_too() -> None:
    """By some guard of the gallery, be it that one alone."""
    guards = [functions(mutant)["is_sound"] for mutant in GALLERY["ex07.2"].values()]
    for fault in [each for one in OF_ADA.values() for each in siblings(one.family)]:
        record = incident(fault, Random(0)).record
        assert any(guard(record) for guard in guards), fault.cause


def functions(mutant) -> dict:
    namespace: dict = {}
    exec(compile(mutant.file(SOLUTIONS), mutant.name, "exec"), namespace)
    return namespace


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        (True, "a guard that lets every ride by guards nothing"),
        (False, "a guard that stops every ride is a locked door"),
    ],
)
def test_a_guard_that_always_says_the_same_is_told_so_whatever_is_drawn(
    said: bool, sentence: str, tmp_path: Path
) -> None:
    for seed, name in enumerate(("ada", "grace", "lin", "bob")):
        source = f"def on_call():\n    return {name!r}\n\n\ndef is_sound(ride):\n    return {said}\n"
        assert told(tmp_path, source, "ex07.2", seed).property_name == sentence


def test_constants_do_not_pass(tmp_path: Path) -> None:
    """Not even the right ones of some ride."""
    found = incident(OF_ADA["memory"], Random(0))
    answer = (found.fault.cause, found.number, found.step)
    for seed in range(5):
        source = f"def diagnose(ride):\n    return {answer!r}\n"
        assert told(tmp_path, source, "ex07.1", seed).status == "failed"


def test_a_wrong_cause_is_not_told_the_right_one(tmp_path: Path) -> None:
    others = [each for each in FAULTS if each not in {fault.cause for fault in OF_ADA.values()}]
    for answer in ((others[0], 1, 0), ("nothing", 1, 0), (3, 1, 0), "a slot", ("a", "b", "c")):
        result = told(tmp_path, f"def diagnose(ride):\n    return {answer!r}\n", "ex07.1")
        assert result.status == "failed"
        assert not any(fault.cause in result.message for fault in OF_ADA.values())
    assert result.due == "a cause, a number and a step"


def test_a_guard_is_told_which_sibling_it_lets_by_and_of_a_ticket_only_the_desk(tmp_path: Path) -> None:
    too_few = GALLERY["ex07.2"]["too_few_only"].file(SOLUTIONS)
    (tmp_path / "ex07.py").write_text(too_few)
    (result,) = check("ex07.2", folder=tmp_path, seed=1).results
    assert "it lets by “a request takes blocks that it has no tokens for”, which shows in step" in result.due
    assert list(result.rides) == ["ride"]
    once = (
        "seen = []\n\n\ndef is_sound(ride, right=is_sound):\n"
        "    seen.append(1)\n    return len(seen) > 4 or right(ride)\n"
    )
    result = told(tmp_path, once, "ex07.2")
    assert result.property_name == "a ride with the cause of a ticket is stopped"
    assert "it lets by the cause of your memory ticket, which shows in step" in result.due
    assert not any(fault.cause in result.message for fault in OF_ADA.values())


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        ("3", "on_call should give your name, a string; what came back is an int."),
        ("''", "on_call should give your name: '' is no name to draw for"),
        ("'x' * 500", "give your own, up to 100 characters."),
        ("None", "on_call should give your name, a string; what came back is None."),
    ],
)
@pytest.mark.parametrize("task", ["ex07.1", "ex07.2"])
def test_who_is_on_call_has_a_name(task: str, answer: str, sentence: str, tmp_path: Path) -> None:
    result = told(tmp_path, f"def on_call():\n    return {answer}\n", task)
    assert (result.status, result.property_name) == ("failed", "the answer has the right form")
    assert sentence in result.message
    assert result.call == "on_call()"


def test_whoever_has_not_said_who_they_are_is_told_to(tmp_path: Path) -> None:
    result = told(tmp_path, "def on_call():\n    raise NotImplementedError\n", "ex07.2")
    assert result.status == "not written"
    assert result.seed == 0
    result = told(tmp_path, "def on_call():\n    return 1 / 0\n", "ex07.1")
    assert result.property_name == "no call raises an error"
    result = told(tmp_path, "def is_sound(ride):\n    return 1\n", "ex07.2")
    assert "The guard should say True or False; 1 is an int." in result.message


@pytest.mark.parametrize("name", ["grace", "lin", "bob"])
def test_another_name_draws_other_rides(name: str, tmp_path: Path) -> None:
    result = told(tmp_path, f"def on_call():\n    return {name!r}\n", "ex07.1")
    assert result.property_name == "the cause is the one that was planted"
    assert drawn_for(name) != OF_ADA


def test_every_desk_asks_for_a_law_of_its_own() -> None:
    for number in range(50):
        families = {fault.family for fault in drawn_for(f"student {number}").values()}
        assert len(families) == len(DESKS)


def test_the_command_prints_tickets_and_writes_their_rides(tmp_path: Path) -> None:
    done = lesson("tickets", "ada", "--save", str(tmp_path / "mine"))
    assert done.returncode == 0
    for ticket in tickets("ada"):
        assert str(ticket) in done.stdout
        page = (tmp_path / "mine" / f"{ticket.desk}.html").read_text(encoding="utf-8")
        assert ticket.complaint in page
        assert not any(cause in page for cause in ticket.choices)
        assert Trace.load(tmp_path / "mine" / f"{ticket.desk}.json.gz").same_ride(ticket.trace)
    refused = lesson("tickets", " ")
    assert refused.returncode == 2
    assert refused.stderr.startswith("lesson: error: ' ' is no name to draw for: give your own")


# ----- settings -----


def answered(service: served.Service) -> Settings:
    machine = {
        "blocks": service.blocks,
        "block_size": service.block_size,
        "base": served.BASE,
        "per_prompt_token": served.PER_PROMPT_TOKEN,
        "per_kv_token": served.PER_KV_TOKEN,
    }
    requests = [list(each) for each in service.requests]
    return Settings(*EX07["choose"](requests, machine, service.ttft_limit, service.pause_limit))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "numbers", [[0], pytest.param(range(1, served.CATALOG), marks=pytest.mark.prove)], ids=["one", "all"]
)
def test_the_worked_settings_are_good_enough_for_every_service(kind: str, numbers: Sequence[int]) -> None:
    for number in numbers:
        service = served.service(kind, number)
        settings, most = served.best(service)
        assert served.outcome(service, settings).kept == most
        assert served.outcome(service, answered(service)).kept >= least_of(most)
        assert most >= 0.9 * len(service.requests)


@pytest.mark.parametrize("kind", KINDS)
def test_no_settings_are_good_enough_for_all_services(kind: str) -> None:
    """Each one that the search tries for one kind fails for some service of another."""
    for settings in served._tried(served.service(kind, 0)):
        assert any(
            served.outcome(other, settings).kept < least_of(served.best(other)[1])
            for other in (served.service(each, 0) for each in KINDS)
        ), settings


def test_a_promise_is_counted_from_the_tokens_of_the_trace() -> None:
    service = served.service("memory", 0)
    settings = Settings("continuous", 40, 512)
    trace, outcome = served.serve(service, settings), served.outcome(service, settings)
    assert len(trace.rows(Kind.PREEMPT)["step"])
    times = trace.token_times()
    gaps = [max((b - a for a, b in pairwise(each)), default=0.0) for each in times]
    first = trace.first_token_time().tolist()
    late = [one > service.ttft_limit for one in first]
    paused = [one > service.pause_limit for one in gaps]
    assert outcome.late == sum(late)
    assert outcome.paused == sum(paused) > 0
    assert outcome.kept == sum(not (a or b) for a, b in zip(late, paused, strict=True))


@pytest.mark.parametrize(
    ("answer", "status", "piece"),
    [
        ("('vllm', 8, 64)", "the policy is one that this server has", "with which no server starts"),
        ("('continuous', 0, 64)", "the server starts: 1 to 64 slots", "with which no server starts"),
        ("('continuous', 65, 640)", "the server starts: 1 to 64 slots", "with which no server starts"),
        ("('continuous', 8, 7)", "the server starts: 1 to 64 slots", "with which no server starts"),
        ("('continuous', 8.0, 64)", "the answer has the right form", "Slots should be a whole number"),
        (
            "['continuous', 8]",
            "the answer has the right form",
            "(policy, slots, token_budget): 3 parts, not 2",
        ),
        ("('static', 8, 64)", "no step takes longer than a pause may", "first token late for"),
    ],
)
def test_settings_are_told_what_came_of_them(answer: str, status: str, piece: str, tmp_path: Path) -> None:
    result = told(
        tmp_path, f"def choose(requests, machine, ttft_limit, pause_limit):\n    return {answer}\n", "ex07.3"
    )
    assert result.property_name.startswith(status)
    assert piece in result.message
    assert list(result.rides) == ["ride"]


def test_every_policy_serves() -> None:
    service = served.service("mixed", 0)
    for policy in POLICIES:
        assert served.outcome(service, Settings(policy, 8, 256)).kept >= 0


# ----- whoever is on call -----


@pytest.mark.parametrize(
    "number", [*range(5), *(pytest.param(each, marks=pytest.mark.prove) for each in range(5, 60))]
)
def test_whatever_is_drawn_for_a_name_can_be_solved_from_the_rides_alone(number: int) -> None:
    """By a program that knows the laws of its three tickets, and nothing of what was planted."""
    name = f"student {number}"
    faults = {fault.family: fault.cause for fault in drawn_for(name).values()}

    def diagnose(ride):
        first = {faults[law]: where for law, where in broken(ride, faults).items()}
        cause = min(first, key=lambda each: first[each][0])
        return cause, first[cause][1], first[cause][0]

    for given in DIAGNOSIS.cases(Random(number), name):
        answer = DIAGNOSIS.read(diagnose(given["ride"]), given)
        assert answer == DIAGNOSIS.expected(**given)
    for given in GUARD.cases(Random(number), name):
        assert [not broken(ride, faults) for ride in given["rides"]] == GUARD.expected(**given)


@pytest.mark.parametrize("seed", range(2))
def test_every_mutant_is_refused_by_its_property_whatever_is_drawn(seed: int) -> None:
    """Called here, on the inputs that the checker would give."""
    for task in (DIAGNOSIS, GUARD):
        cases = list(task.cases(Random(f"mutants {seed}")))
        for name, mutant in GALLERY[task.id].items():
            answers = functions(mutant)[task.function]
            assert first_broken(task, answers, cases) == mutant.property, name


def first_broken(task, function, cases) -> str:
    """The property that the first wrong answer breaks; "" where all are right."""
    for given in cases:
        (rides,) = given.values()
        answer = [function(ride) for ride in rides] if task is GUARD else function(rides)
        read, expected = task.read(answer, given), task.expected(**given)
        if name := next((each.name for each in task.properties if not each.holds(given, read, expected)), ""):
            return name
    return ""
