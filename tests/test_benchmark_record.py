"""What a record says of the command: nothing of the machine's folders."""

from __future__ import annotations

from pathlib import Path

import pytest

from kernels.machine import ROOT, command, commit


def test_a_module_is_named_as_one_calls_it() -> None:
    argv = [str(ROOT / "benchmarks" / "slots.py"), "--out", "benchmarks/results"]
    assert command(argv) == "python -m benchmarks.slots --out benchmarks/results"
    argv = [str(ROOT / "lessonlib" / "cli" / "__main__.py"), "bench", "engine"]
    assert command(argv) == "python -m lessonlib.cli bench engine"


def test_paths_outside_are_shortened_to_their_names() -> None:
    argv = [str(ROOT / "benchmarks" / "slots.py"), "--out", str(ROOT / "benchmarks"), "--trace"]
    elsewhere = str(Path(ROOT.anchor) / "data" / "trace.csv")
    assert command([*argv, elsewhere]) == "python -m benchmarks.slots --out benchmarks --trace .../trace.csv"


def test_a_copy_takes_its_commit_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COURSE_COMMIT", "aa42feb")
    assert commit() == "aa42feb"
    monkeypatch.delenv("COURSE_COMMIT")
    assert commit() != "aa42feb"
