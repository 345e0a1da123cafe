"""A Triton exercise under the checker: what its child can reach, and that a fault ends that child and no more."""

from __future__ import annotations

import ast
import itertools
import time
from dataclasses import replace
from pathlib import Path

import needs
import numpy as np
import pytest
import torch
from conftest import KERNEL_TIER
from triton.compiler.errors import CompilationError

from kernels import tier
from kernels.batches import make_batch
from lessonlib.checks import check, runner
from lessonlib.checks.ex04 import EX04_KERNEL, kernel_harness
from lessonlib.checks.ex04.decode_attention import DECODE, SHARE
from lessonlib.checks.mutants import read_all
from lessonlib.checks.race import race
from lessonlib.checks.report import Report, Result
from lessonlib.checks.sandbox import process as sandbox_process
from lessonlib.checks.sandbox.process import Child, Reply
from lessonlib.grading.job import Job, run

SOLUTIONS = Path(__file__).parents[1] / "solutions"
SOLUTION = SOLUTIONS / "ex04_kernel.py"

# A loop that the compiler cannot see the end of.
HANGS = """

@triton.jit
def _endless_kernel(seq_lens):
    while tl.load(seq_lens, volatile=True) >= 0:
        pass


def decode_attention(out, query, key_cache, value_cache, block_table, seq_lens, scale):
    _endless_kernel[(1,)](seq_lens)
"""

FAR_AWAY = """

@triton.jit
def _lost_kernel(out):
    tl.store(out + (1 << 40) + tl.arange(0, 16), 0.0)


def decode_attention(out, query, key_cache, value_cache, block_table, seq_lens, scale):
    _lost_kernel[(1,)](out)
"""

TAKES_ALL = """

def decode_attention(out, query, key_cache, value_cache, block_table, seq_lens, scale):
    held = []
    while True:
        held.append(torch.empty(1 << 28, dtype=torch.uint8, device=out.device))
"""

UNWRITTEN = """

@triton.jit
def _decode_kernel(out, query):
    raise NotImplementedError("ex04.5: _decode_kernel is not written yet")


def decode_attention(out, query, key_cache, value_cache, block_table, seq_lens, scale):
    _decode_kernel[(1,)](out, query)
"""

MISNAMED = """

@triton.jit
def _misnamed_kernel(out):
    tl.store(out + tl.arange(0, 16), tl.zero([16], tl.float32))


def decode_attention(out, query, key_cache, value_cache, block_table, seq_lens, scale):
    _misnamed_kernel[(1,)](out)
"""


def written(folder: Path, instead: str = "") -> Path:
    """A folder with the solution, and `instead` in the place of its functions."""
    (folder / "ex04_kernel.py").write_text(SOLUTION.read_text(encoding="utf-8") + instead, encoding="utf-8")
    return folder


def told(folder: Path, instead: str, **options):
    (result,) = check("ex04.5", folder=written(folder, instead), **options).results
    return result


def test_the_solution_passes_in_the_tier_that_is_here(tier: str, tmp_path: Path, monkeypatch) -> None:
    shares = []
    monkeypatch.setattr(runner, "race", lambda *words: shares.append(race(*words)) or shares[-1])
    right, fast = check("ex04.5", folder=written(tmp_path)).results
    assert (right.status, right.tier) == ("passed", tier), right.message
    assert fast.tier == "gpu"
    if tier == "gpu":
        assert fast.status == "passed", fast.message
        assert "of the speed of the course's kernel on 128 sequences" in fast.sentence
        assert len(shares) == len(DECODE.speed.cases)
        assert min(shares) > 1.5 * SHARE, shares  # with a margin
    else:
        assert fast.status == "not checked here"
        assert (
            fast.sentence == "It needs tier gpu; this machine runs tier interpreter. There is no NVIDIA GPU."
        )
        assert fast.property_name == DECODE.speed.property
        assert not shares


def test_a_batch_that_this_machine_cannot_hold_is_left_out_and_said(tmp_path: Path, monkeypatch) -> None:
    """Caches of more than 2**31 numbers take 13 GB of addresses, though hardly any memory."""
    if KERNEL_TIER != "interpreter":
        needs.INTERPRETER.skip()
    monkeypatch.setitem(sandbox_process.BYTES, "interpreter", {"AS": 12 << 30})
    right, _ = check("ex04.5", folder=written(tmp_path)).results
    assert right.status == "passed", right.message
    assert right.sentence.startswith(
        "Not tried on this machine: decode_attention(lengths=[20, 3], heads=(8, 8)"
    )
    assert right.sentence.endswith("first_block=131072, shift=0.0) ([Errno 12] Cannot allocate memory).")


def test_an_address_that_is_nobodys_has_its_own_verdict(tier: str, tmp_path: Path) -> None:
    result = told(tmp_path, FAR_AWAY)
    assert (result.status, result.property_name) == ("failed", runner.IN_BOUNDS), result.message
    assert ("illegal memory access" if tier == "gpu" else "SIGSEGV") in result.sentence


def test_a_kernel_that_hangs_ends_in_its_limit(tier: str, tmp_path: Path) -> None:
    seconds = 1.0 if tier == "gpu" else 0.1
    result = told(tmp_path, HANGS, call_seconds=seconds)
    assert (result.status, result.property_name) == ("failed", runner.COMES_BACK), result.message
    limit = seconds * EX04_KERNEL.patience
    assert result.sentence == f"No answer within {limit:g} seconds. Does one of its loops never end?"


def test_a_kernel_that_takes_all_memory_has_its_own_verdict(tier: str, tmp_path: Path) -> None:
    result = told(tmp_path, TAKES_ALL)
    assert (result.status, result.property_name) == ("failed", runner.RAISES_NOTHING), result.message
    assert ("OutOfMemoryError" if tier == "gpu" else "allocate memory") in result.sentence


@pytest.mark.gpu
def test_a_class_of_kernels_is_graded_in_turn(tmp_path: Path) -> None:
    """Hanging, lost, greedy and slow, a good one after each: all have their own verdict, so the card was usable."""
    if KERNEL_TIER != "gpu":
        needs.GPU.skip()
    due = {
        HANGS: runner.COMES_BACK,
        FAR_AWAY: runner.IN_BOUNDS,
        TAKES_ALL: runner.RAISES_NOTHING,
        slow_mutant(): DECODE.speed.property,
    }
    for bad, property_name in due.items():
        assert graded_alone(tmp_path, bad) == ("failed", property_name)
        assert graded_alone(tmp_path, "") == ("passed", "")


def slow_mutant() -> str:
    return read_all(SOLUTIONS / "mutants")["ex04.5"]["one_launch_each"].file(SOLUTIONS)


def graded_alone(folder: Path, instead: str) -> tuple[str, str]:
    """(status, property) of the last result of one submission, as a class's is graded on a GPU."""
    text = (written(folder, instead) / "ex04_kernel.py").read_bytes()
    started = time.monotonic()
    done = run(Job("student", (DECODE.id,), {EX04_KERNEL.id: text}, seed=2))
    *_, last = done["results"]
    levels = ", ".join(level["name"] for level in done["sandbox"])
    print(f"{last['status']} in {time.monotonic() - started:.0f} s ({levels}): {last['message']}")
    assert {result["tier"] for result in done["results"]} == {"gpu"}
    return last["status"], last["property"]


def test_a_kernel_that_is_not_written_is_no_mistake(tier: str, tmp_path: Path) -> None:
    result = told(tmp_path, UNWRITTEN)
    assert result.status == "not written", result.message
    assert "of ex04_kernel.py" in result.sentence


def test_an_error_inside_of_a_kernel_is_told(tier: str, tmp_path: Path) -> None:
    result = told(tmp_path, MISNAMED)
    assert (result.status, result.property_name) == ("failed", runner.RAISES_NOTHING), result.message
    assert "zero" in result.sentence
    assert "of ex04_kernel.py" in result.sentence


def test_no_answer_is_within_reach_of_the_child(tmp_path: Path) -> None:
    (tmp_path / "reach.py").write_text(
        "import importlib.util, sys\n"
        "def found(names):\n"
        "    return [name for name in names if importlib.util.find_spec(name)]\n",
        encoding="utf-8",
    )
    answers = [
        "lessonlib",
        "solutions",
        "kernels.attention",
        "kernels.reference",
        "kernels.ladder",
        "kernels.bench",
    ]
    with Child(tmp_path / "reach.py", EX04_KERNEL, "interpreter") as child:
        child.load()
        reply = child.call("found", [["torch", "triton", "kernels.batches", *answers]], 5)
    assert reply.answer == ["torch", "triton", "kernels.batches"]


@pytest.mark.parametrize("lacks", ["torch", "triton"])
def test_without_triton_it_is_not_checked_and_not_passed(tmp_path: Path, monkeypatch, lacks: str) -> None:
    found = tier.find_spec
    monkeypatch.setattr(tier, "find_spec", lambda name: None if name == lacks else found(name))
    report = check("ex04.5", folder=written(tmp_path))
    assert [(result.status, result.tier) for result in report.results] == [
        ("not checked here", "interpreter")
    ]
    assert report.exit_code == 2
    assert report.summary == "0 of 1 passed, 1 not checked here (tier: none)"


def test_what_is_not_checked_here_is_neither_passed_nor_failed() -> None:
    not_here = runner._not_checked(DECODE, "gpu", "interpreter", seed=0)
    passed = Result("ex04.1", "", "passed", 0)
    assert Report((passed, not_here), 0).exit_code == 0
    assert Report((passed, not_here), 0).summary == "1 of 2 passed, 1 not checked here (tier: python)"
    assert Report((Result("ex04.1", "", "failed", 0), not_here), 0).exit_code == 1


@pytest.mark.parametrize(
    ("line", "type_", "told"),
    [
        ("x = tl.zero()", "CompilationError", "no such name, in the kernel's line `x = tl.zero()`"),
        ("raise NotImplementedError", "NotImplementedError", "a kernel is not written yet"),
    ],
)
def test_what_the_compiler_says_is_told_in_a_line(line: str, type_: str, told: str) -> None:
    source = f"def kernel(out):\n    {line}\n"
    inner = CompilationError(source, ast.parse(source).body[0].body[0], "no such name")
    outer = CompilationError("def caller(out):\n    kernel(out)\n", ast.parse("kernel(out)").body[0])
    outer.__cause__ = inner
    cause = kernel_harness._cause(outer)
    assert (type(cause).__name__, str(cause)) == (type_, told)


class Timed:
    """A child that answers as it is told to: a warm-up's rows, then laps of so many microseconds."""

    def __init__(self, rows: float, *laps: float) -> None:
        self.rows, self.laps = np.full((2, 4), rows), itertools.cycle(laps)

    def call(self, function, arguments, seconds, through):
        return Reply(answer=self.rows if through == "warm_up" else next(self.laps))


class Event:
    """In the place of a CUDA event: half a millisecond passes between any two."""

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing

    def record(self) -> None:
        pass

    def elapsed_time(self, end: Event) -> float:
        return 0.5


def test_a_lap_is_several_calls_on_what_was_laid_out(monkeypatch) -> None:
    calls = []
    monkeypatch.setattr(kernel_harness, "DEVICE", "cpu")
    monkeypatch.setattr(kernel_harness, "FLUSH", 16)
    monkeypatch.setattr(kernel_harness.torch.cuda, "Event", Event)

    def decode(out, *read) -> None:
        out[:] = torch.arange(2.0)[:, None]
        calls.append(out)

    rows = kernel_harness.warm_up(decode, [3, 20, 1], (2, 1), 64, "float32", 0.125, 0, 0, 0.0)
    assert rows[:, 0].tolist() == [0.0, 1.0, 0.0]  # of another head each
    assert kernel_harness.lap(decode) == 500 / kernel_harness.CALLS
    assert len(calls) == kernel_harness.WARM_UP + kernel_harness.CALLS


def test_the_reference_gives_the_solutions_answer(tier: str) -> None:
    small = {
        **next(iter(DECODE.speed.cases.values())),
        "lengths": [3, 40],
        "heads": (4, 2),
        "dtype": "float32",
    }
    answers = []
    for path, packages in ((SOLUTION, ()), (DECODE.speed.reference, DECODE.speed.packages)):
        exercise = replace(EX04_KERNEL, packages=(*EX04_KERNEL.packages, *packages))
        with Child(path, exercise, tier) as child:
            assert child.load().functions, child.loaded
            answers.append(child.call(DECODE.function, list(small.values()), 60.0, "warm_up").answer)
    assert DECODE.speed.close(*answers)


def test_speed_is_a_ratio_of_medians() -> None:
    case = next(iter(DECODE.speed.cases.values()))
    laps = Timed(1.0, 40.0, 40.0, 900.0), Timed(1.0, 10.0, 10.0, 1.0)
    assert race(*laps, "decode_attention", DECODE.speed, case, 1.0) == 0.25
    other = Timed(1.0, 40.0), Timed(2.0, 10.0)
    assert race(*other, "decode_attention", DECODE.speed, case, 1.0) is None


def test_numbers_drawn_on_the_cpu_are_the_same_wherever_they_go(device: str) -> None:
    here, there = (make_batch([(1, 20), (1, 0)], device=each) for each in ("cpu", device))
    for name in ("query", "key_cache", "value_cache", "block_table"):
        assert here[name].nan_to_num(7.0).equal(there[name].cpu().nan_to_num(7.0)), name
