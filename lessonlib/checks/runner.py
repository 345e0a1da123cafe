"""Runs checks: small inputs first, one warm child for each file, and the smallest failing case is told."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from random import Random
from typing import Any

from kernels.tier import find as find_tier
from kernels.tier import triton_remedy
from lessonlib.checks.ex01 import EX01
from lessonlib.checks.ex02 import EX02
from lessonlib.checks.ex03 import EX03
from lessonlib.checks.ex04 import EX04, EX04_KERNEL
from lessonlib.checks.ex05 import EX05
from lessonlib.checks.ex06 import EX06
from lessonlib.checks.ex07 import EX07
from lessonlib.checks.precision import lost_digits
from lessonlib.checks.race import Stopped, race
from lessonlib.checks.report import (
    CAN_BE_LOADED,
    ERROR,
    FAILED,
    HAS_FUNCTION,
    IS_THERE,
    NOT_CHECKED,
    NOT_WRITTEN,
    PASSED,
    Report,
    Result,
)
from lessonlib.checks.sandbox.child import MAX_ITEMS
from lessonlib.checks.sandbox.confine import Level
from lessonlib.checks.sandbox.process import LOAD_SECONDS, Child, Raised, Reply
from lessonlib.checks.spec import (
    GPU,
    PYTHON,
    TIERS,
    CannotRun,
    ChangedInput,
    Exercise,
    Given,
    Speed,
    Task,
    WrongForm,
    count,
    show,
    show_call,
)
from lessonlib.errors import CourseError
from lessonlib.layout import find_folder
from lessonlib.trace import Trace

EXERCISES = {exercise.id: exercise for exercise in (EX01, EX02, EX03, EX04, EX04_KERNEL, EX05, EX06, EX07)}

# The first two are multiplied by an exercise's patience.
CALL_SECONDS = 2.0  # one call, by the clock, but for the time in which it waits for a core
TASK_SECONDS = 15.0  # all calls of one task, as far as each takes more than LATENCY
LATENCY = 0.2  # on a machine that is busy with other things, the quickest call waits for its turn
SHRINK_SECONDS = 0.7  # looking for a smaller failing case, but for waiting for a core
MAX_SEED = 1 << 32

# Manners: what every task asks for before its own properties are looked at.
COMES_BACK = "every call comes back"
RAISES_NOTHING = "no call raises an error"
INPUTS_KEPT = "the inputs are left as they were"
RIGHT_FORM = "the answer has the right form"
EXACT = "numbers are neither rounded nor cut"
IN_BOUNDS = "no address outside of the tensors is touched"
WROTE_TO_PIPE = "wrote into the checker's own pipe. An answer is what a function returns, and nothing else."
NEVER_ENDS = "Does one of its loops never end?"
MEMORY_FAULTS = ("signal SIGSEGV", "signal SIGBUS")


@dataclass(frozen=True)
class Verdict:
    """What is wrong with one answer. The fields are those of `Result`; `answer` is it, where one could be read."""

    property: str
    sentence: str = ""
    came_back: str = ""
    due: str = ""
    printed: str = ""
    status: str = FAILED
    answer: Any = None


def check(
    *exercises: str,
    folder: str | Path = "exercises",
    seed: int | None = None,
    call_seconds: float = CALL_SECONDS,
    level: Level | None = None,
) -> Report:
    """Check a student's answers.

    Args:
        exercises: ids such as "ex01" (all of its tasks) or "ex01.2"; none for everything there is.
        folder: where the files lie, looked for as `layout.find_folder` does.
        seed: draws the inputs; a fresh one each time unless given.
        call_seconds: how long one call may take; a kernel, which is compiled or interpreted, takes longer and may.
        level: how well the files are shut in; the best that this machine can do unless given.

    Raises `CourseError` for an unknown id, a missing folder, or one with none of the files. A file that is missing
    or cannot be loaded is a result with status "error", so that the others are still checked.
    """
    wanted = select(exercises)
    found = find_folder(folder)
    files = {name: found / f"{name}.py" for name in wanted}
    there = ", ".join(sorted(path.name for path in found.glob("*.py"))) or "no Python file"
    if not any(path.is_file() for path in files.values()):
        names = ", ".join(path.name for path in files.values())
        raise CourseError(f"no file {names} in {found}: there is {there}")
    seed = fresh_seed() if seed is None else seed
    results: list[Result] = []
    levels: dict[str, Level] = {}
    for name, tasks in wanted.items():
        if not files[name].is_file():
            missing = f"There is no {name}.py in {found.name}: there is {there}."
            results += could_not(tasks, missing, seed, IS_THERE)
            continue
        of_file, used = check_file(files[name], name, tasks, seed, call_seconds, level)
        results += of_file
        levels |= {used.name: used} if used else {}
    read = tuple(path.name for path in files.values() if path.is_file())
    return Report(tuple(results), seed, tuple(levels.values()), found, read)


def fresh_seed() -> int:
    """A seed that nobody chose."""
    return secrets.randbelow(MAX_SEED)


def check_file(
    path: Path,
    name: str,
    tasks: Sequence[Task],
    seed: int,
    call_seconds: float = CALL_SECONDS,
    level: Level | None = None,
) -> tuple[list[Result], Level | None]:
    """The results of these tasks of the exercise `name`, and how the file was shut in (None: it did not run)."""
    exercise = EXERCISES[name]
    here = _tier_here(exercise)
    if TIERS.index(here) < TIERS.index(exercise.tier):
        return [_not_checked(task, exercise.tier, here, seed) for task in tasks], None
    with Child(path, exercise, here, level) as child:
        return _check_tasks(child, exercise, tasks, seed, call_seconds * exercise.patience), child.level


def could_not(tasks: Sequence[Task], sentence: str, seed: int, property_name: str = "") -> list[Result]:
    """The results of tasks that could not be checked."""
    return [Result(task.id, task.title, ERROR, seed, property_name, sentence) for task in tasks]


def _tier_here(exercise: Exercise) -> str:
    """The tier in which this machine runs the exercise: looking for a GPU takes a while."""
    if exercise.tier == PYTHON:
        return PYTHON
    return find_tier().name


def _not_checked(task: Task, needed: str, here: str, seed: int) -> Result:
    remedy = f"Triton is not installed: {triton_remedy()}" if here == PYTHON else "There is no NVIDIA GPU"
    sentence = f"It needs tier {needed}; this machine runs tier {here}. {remedy}."
    return Result(task.id, task.title, NOT_CHECKED, seed, sentence=sentence, tier=needed)


def select(ids: Sequence[str]) -> dict[str, list[Task]]:
    """Exercise id → tasks to check, in the course's order; everything for no ids."""
    known = {task.id for exercise in EXERCISES.values() for task in exercise.tasks}
    for name in ids:
        if name not in known and name not in EXERCISES:
            raise CourseError(
                f"unknown exercise {name!r}: there is {', '.join([*EXERCISES, *sorted(known)])}"
            )
    chosen = {
        exercise.id: [
            task
            for task in exercise.tasks
            if not ids or {task.id, exercise.id, task.id.split(".")[0]} & set(ids)
        ]
        for exercise in EXERCISES.values()
    }
    return {name: tasks for name, tasks in chosen.items() if tasks}


def _check_tasks(
    child: Child, exercise: Exercise, tasks: Sequence[Task], seed: int, call_seconds: float
) -> list[Result]:
    results: list[Result] = []
    for task in tasks:
        result = _check_task(child, exercise, task, seed, call_seconds)
        results.append(_blame(task, replace(result, tier=child.tier), results))
        if task.speed is not None and result.status == PASSED:
            results.append(_check_speed(child, exercise, task, task.speed, seed, call_seconds))
        if result.status == FAILED:
            child.stop()  # with whatever the call left behind: the next task begins afresh
    return results


def _blame(task: Task, result: Result, before: Sequence[Result]) -> Result:
    """Where a part that this task is built on fails too, say so: it may be the cause."""
    shaky = [part.id for part in before if part.id in task.built_on and part.status == FAILED]
    if result.status != FAILED or not shaky:
        return result
    sentence = f"It is built on {' and '.join(shaky)}, still wrong: begin there. {result.sentence}"
    return replace(result, sentence=sentence.strip())


def _check_task(child: Child, exercise: Exercise, task: Task, seed: int, call_seconds: float) -> Result:
    if (problem := _ready(child, exercise, task)) is not None:
        return Result(task.id, task.title, problem.status, seed, problem.property, problem.sentence)
    cases = _cases(child, task, Random(f"{seed} {task.id}"), call_seconds)
    if isinstance(cases, Result):
        return replace(cases, seed=seed)
    spent, seconds, left_out = 0.0, TASK_SECONDS * exercise.patience, ""
    for given in cases:
        try:
            verdict = _try(child, task, given, call_seconds)
        except CannotRun as reason:
            left_out = f"Not tried on this machine: {show_call(task.called(given), given)} ({reason})."
            continue
        spent += max(0.0, child.took - LATENCY)
        if verdict is None and spent > seconds:
            verdict = Verdict(COMES_BACK, f"All calls together took more than {seconds:g} seconds.")
        if verdict is not None:
            given, verdict = _shrink(child, task, given, verdict, call_seconds)
            return _result(task, seed, given, verdict)
    return Result(task.id, task.title, PASSED, seed, sentence=left_out)


def _cases(child: Child, task: Task, rng: Random, call_seconds: float) -> Iterator[Given] | Result:
    """The inputs of a check; what is to be said where the file does not tell for whom they are to be drawn."""
    on_gpu = task.cases_on_gpu if child.tier == GPU else None
    if not task.drawn_for:
        return chain(task.cases(rng), on_gpu(rng) if on_gpu else ())
    reply = child.call(task.drawn_for, [], call_seconds)
    verdict = _mishap(child.name, task, task.function, reply, call_seconds)
    if verdict is None:
        try:
            return task.cases(rng, reply.answer)
        except WrongForm as wrong:
            verdict = Verdict(RIGHT_FORM, str(wrong), show(reply.answer), printed=reply.printed)
    return _told(task, None, show_call(task.drawn_for, {}), verdict)


def _ready(child: Child, exercise: Exercise, task: Task) -> Verdict | None:
    """Make sure that the file is loaded and has the function; what is to be said where it is not so."""
    reply = child.load()
    if (sentence := _not_loaded(child.name, exercise, reply)) is not None:
        return Verdict(CAN_BE_LOADED, sentence, status=ERROR)
    for function in task.functions:
        if function not in reply.functions:
            there = ", ".join(reply.functions) or "no function"
            sentence = f"{child.name} has no function {function}: it has {there}. Was it renamed?"
            return Verdict(HAS_FUNCTION, sentence, status=ERROR)
    return None


def _not_loaded(name: str, exercise: Exercise, reply: Reply) -> str | None:
    if reply.ended == "time":
        took = f"{name} was not loaded within {LOAD_SECONDS:g} seconds."
        return f"{took} Is there a loop outside of its functions?"
    if reply.ended == "pipe":
        return f"{name} {WROTE_TO_PIPE}"
    if reply.ended == "memory":
        return f"{name} used up the memory that all its processes may have together, while it was loaded."
    if reply.ended:
        return f"{name} ended Python while it was loaded ({reply.ended})."
    if reply.raised is not None:
        return _unloadable(name, exercise, reply.raised)
    return None


def _unloadable(name: str, exercise: Exercise, raised: Raised) -> str:
    sentence = f"{name} cannot be loaded: {_described(raised)}{_where(name, raised)}."
    if raised.type == "ModuleNotFoundError":
        packages = " and ".join(["the standard library", *exercise.packages])
        sentence += f" While it is checked, it may import {packages}, and nothing else."
    return sentence


def _described(raised: Raised) -> str:
    return f"{raised.type}: {raised.text}" if raised.text else raised.type


def _where(name: str, raised: Raised) -> str:
    """ ", line 12 of ex01.py, `x = y`", or nothing where the line is not known."""
    if not raised.line:
        return ""
    return f", at line {raised.line} of {name}" + (f", `{raised.source}`" if raised.source else "")


# ----- one case -----


def _try(child: Child, task: Task, given: Given, call_seconds: float) -> Verdict | None:
    """Call the student's function once; None where everything holds. Raises `CannotRun`."""
    counted = task.made_of.functions if task.made_of is not None else ()
    reply = child.call(task.called(given), list(given.values()), call_seconds, task.through, counted)
    if (mishap := _mishap(child.name, task, task.called(given), reply, call_seconds)) is not None:
        return mishap
    expected = task.expected(**given)
    shown_expected = _show_expected(task, given, expected)
    if reply.changed:
        return Verdict(INPUTS_KEPT, _about_changed(given, reply), printed=reply.printed)
    try:
        answer = task.read(reply.answer, given)
    except WrongForm as wrong:
        sentence = _about_nothing(reply) if reply.answer is None else _capitalized(str(wrong))
        if isinstance(wrong, ChangedInput):
            return Verdict(INPUTS_KEPT, sentence, printed=reply.printed)
        shown_expected = task.kept_back or shown_expected
        return Verdict(RIGHT_FORM, sentence, show(reply.answer), shown_expected, reply.printed)
    for property_ in task.properties:
        if not property_.holds(given, answer, expected):
            shown = task.shown(answer, expected) if task.shown else (_show_state(answer), shown_expected)
            lost = lost_digits(answer, expected)
            name = EXACT if lost else property_.name
            return Verdict(name, lost, *shown, reply.printed, answer=answer)
    return _without_parts(task, given, expected, reply)


def _without_parts(task: Task, given: Given, expected: object, reply: Reply) -> Verdict | None:
    """What is to be said of a right answer that is not made of the parts that it must be made of."""
    if task.made_of is None:
        return None
    functions = task.made_of.functions
    least = dict(zip(functions, task.made_of.least(given, expected), strict=True))
    calls = {name: reply.calls.get(name, 0) for name in functions}
    if all(calls[name] >= least[name] for name in functions):
        return None
    sentence = "The numbers are right. But the parts are not called, or not as often as a ride needs them."
    return Verdict(
        task.made_of.property, sentence, _shown_calls(calls), f"at least {_shown_calls(least)}", reply.printed
    )


def _shown_calls(calls: Mapping[str, int]) -> str:
    return " and ".join(f"{count(times, 'call')} of {name}" for name, times in calls.items())


def _mishap(name: str, task: Task, function: str, reply: Reply, call_seconds: float) -> Verdict | None:
    """What is to be said where no answer came; None where one did."""
    if task.through and reply.ended in MEMORY_FAULTS:
        return _out_of_bounds(reply.ended)
    if reply.ended:
        return _no_answer(reply, call_seconds)
    if reply.raised is not None and reply.lost:
        return _out_of_bounds(_described(reply.raised).splitlines()[0])
    if reply.raised is not None and reply.limit:
        return _at_the_limit(name, reply, reply.raised)
    if reply.raised is not None:
        return _about_raised(name, function, reply, reply.raised)
    return None


def _out_of_bounds(fault: str) -> Verdict:
    advice = "Is every load and store masked, those of the block table too?"
    return Verdict(IN_BOUNDS, f"The kernel was stopped at an address that is not its own ({fault}). {advice}")


def _at_the_limit(name: str, reply: Reply, raised: Raised) -> Verdict:
    """The same property as where the time is out: which limit is met first depends on how busy the machine is."""
    met = f"It used up the {reply.limit} that it may have ({_described(raised)}{_where(name, raised)})."
    return Verdict(COMES_BACK, f"{met} {NEVER_ENDS}", printed=reply.printed)


def _no_answer(reply: Reply, call_seconds: float) -> Verdict:
    if reply.ended == "time":
        sentence = f"No answer within {call_seconds:g} seconds. {NEVER_ENDS}"
        return Verdict(COMES_BACK, sentence)
    if reply.ended == "memory":
        sentence = "All its processes together used up the memory that they may have."
        return Verdict(COMES_BACK, f"{sentence} {NEVER_ENDS}")
    if reply.ended == "large":
        sentence = f"The answer is too large to look at: more than {MAX_ITEMS:,} items."
        return Verdict(RIGHT_FORM, sentence, printed=reply.printed)
    if reply.ended == "pipe":
        return Verdict(COMES_BACK, f"The call {WROTE_TO_PIPE}")
    sentence = f"The call ended Python itself ({reply.ended}). A function returns; it does not exit."
    return Verdict(COMES_BACK, sentence)


def _about_raised(name: str, function: str, reply: Reply, raised: Raised) -> Verdict:
    if raised.type == "NotImplementedError":
        sentence = f"Your lines go to line {raised.line} of {name}."
        if raised.function != function:
            sentence = f"It calls {raised.function}, which is not written yet. {sentence}"
        return Verdict("", sentence, status=NOT_WRITTEN)
    return Verdict(
        RAISES_NOTHING, f"It raised {_described(raised)}{_where(name, raised)}.", printed=reply.printed
    )


def _about_changed(given: Given, reply: Reply) -> str:
    names = list(given)
    index, after = next(iter(sorted(reply.changed.items())))
    change = f"It changed its input {names[index]} from {show(given[names[index]])} to {show(after)}."
    return f"{change} Whoever called it may still need that one: work on a copy."


def _about_nothing(reply: Reply) -> str:
    if reply.printed:
        return "It printed something and returned nothing. The checker looks at what is returned."
    return "It returned nothing. Is a `return` missing?"


def _show_expected(task: Task, given: Given, expected: object) -> str:
    shown = _show_state(expected)
    explained = task.explain(given, expected) if task.explain else ""
    return f"{shown}: {explained}" if explained else shown


def _show_state(answer: object) -> str:
    """An answer in the form in which it is compared; named tuples as plain ones."""
    return show(tuple(answer) if isinstance(answer, tuple) else answer)


def _capitalized(text: str) -> str:
    return text[:1].upper() + text[1:]


def _result(task: Task, seed: int, given: Given, verdict: Verdict) -> Result:
    told = _told(task, seed, show_call(task.called(given), given), verdict)
    return replace(told, rides=_rides(task, given, verdict))


def _told(task: Task, seed: int | None, call: str, verdict: Verdict) -> Result:
    """A verdict as a result; a function that is not written yet was not called."""
    return Result(
        id=task.id,
        title=task.title,
        status=verdict.status,
        seed=seed,
        property_name=verdict.property,
        sentence=verdict.sentence,
        call="" if verdict.status == NOT_WRITTEN else call,
        came_back=verdict.came_back,
        due=verdict.due,
        printed=verdict.printed,
    )


def _rides(task: Task, given: Given, verdict: Verdict) -> Mapping[str, Trace]:
    """The case for the elevator: what came back where that can be shown, and what was due."""
    if task.rides is None or verdict.status != FAILED:
        return {}
    expected = task.expected(**given)
    try:
        return task.rides(given, verdict.answer, expected)
    except (ValueError, LookupError):  # the answer is no ride
        return task.rides(given, None, expected)


# ----- speed -----


def _check_speed(
    child: Child, exercise: Exercise, task: Task, speed: Speed, seed: int, call_seconds: float
) -> Result:
    """A right answer's speed, as a second result of its task."""
    task = replace(task, title=f"{task.title}, its speed")
    if child.tier != GPU:
        return replace(_not_checked(task, GPU, child.tier, seed), property_name=speed.property)
    reached = []
    allowed = replace(exercise, packages=(*exercise.packages, *speed.packages))
    with Child(speed.reference, allowed, child.tier, child.level) as reference:
        if (problem := _ready(reference, allowed, task)) is not None:
            raise CourseError(f"the course's own kernel could not be timed: {problem.sentence}")
        for batch, given in speed.cases.items():
            try:
                share = race(child, reference, task.function, speed, given, call_seconds)
                verdict = _too_slow(speed, share, batch)
            except Stopped as stopped:
                share = None
                verdict = _mishap(child.name, task, task.function, stopped.reply, call_seconds)
            except CourseError as error:  # of the course's own kernel: the next file is checked all the same
                return Result(task.id, task.title, ERROR, seed, sentence=f"{error}.", tier=child.tier)
            if verdict is not None:
                return replace(_result(task, seed, given, verdict), tier=child.tier)
            reached.append(f"{share:.2f} of the speed of the course's kernel on {batch}")
    return Result(task.id, task.title, PASSED, seed, sentence=f"{'; '.join(reached)}.", tier=child.tier)


def _too_slow(speed: Speed, share: float | None, batch: str) -> Verdict | None:
    if share is None:
        return Verdict(speed.property, f"On {batch} its answer is not that of the course's kernel.")
    if share >= speed.share:
        return None
    sentence = (
        f"{share:.2f} of the speed of the course's kernel on {batch}: due is at least {speed.share:.2f}."
    )
    return Verdict(speed.property, sentence)


# ----- the smallest failing case -----


def _shrink(
    child: Child, task: Task, given: Given, verdict: Verdict, call_seconds: float
) -> tuple[Given, Verdict]:
    """Smaller inputs that fail too, and how, as far as they are found in the time there is."""
    spent, found = 0.0, True
    while found and child.running and verdict.status == FAILED:
        found = False
        for smaller in task.smaller(given):
            if spent > SHRINK_SECONDS:
                return given, verdict
            other = _try(child, task, smaller, call_seconds)
            spent += child.took
            if not child.running:
                break
            if other is not None and other.status == FAILED:
                given, verdict, found = smaller, other, True
                break
    return given, verdict
