"""What a check found, in the same words for a terminal, a notebook and a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from html import escape
from pathlib import Path
from typing import Any

from lessonlib.checks.sandbox.cleaning import clean_lines
from lessonlib.checks.sandbox.confine import Level
from lessonlib.trace import Trace

PASSED, FAILED, NOT_WRITTEN, ERROR = "passed", "failed", "not written", "error"
NOT_CHECKED = "not checked here"  # neither passed nor failed: it needs another machine
MARKS = {PASSED: "✓", FAILED: "✗", NOT_WRITTEN: "○", ERROR: "!", NOT_CHECKED: "–"}
SAID = {
    PASSED: "passed",
    FAILED: "failed",
    NOT_WRITTEN: "not written yet",
    ERROR: "could not be checked",
    NOT_CHECKED: "not checked here",
}
# What has to hold before anything can be checked, of a submission, of a file of it and of the tasks in a file.
CAN_BE_READ = "the submission can be read"
IS_THERE = "the file is there"
FILE_CAN_BE_READ = "the file can be read"
CAN_BE_LOADED = "the file can be loaded"
HAS_FUNCTION = "the file has the function, under its name"
COLORS = {  # Okabe–Ito
    PASSED: "#009E73",
    FAILED: "#D55E00",
    NOT_WRITTEN: "#808080",
    ERROR: "#D55E00",
    NOT_CHECKED: "#808080",
}
CODE = ("the call", "came back", "was due", "it printed")  # lines set in the font of code


@dataclass(frozen=True)
class Result:
    """How one task fared.

    Attributes:
        id, title: the task's. A task whose speed counts has a second result under the same id.
        status: "passed", "failed", "not written", "error" (could not be checked) or "not checked here" (it
            needs a tier that this machine has not).
        seed: the same seed draws the same inputs again; None where it is not for the reader.
        property_name: what should hold and did not, of the answer or, with status "error", of the file (one of
            those below); "property" in `to_dict`.
        sentence: what happened, where a call, an answer and what was due do not say it.
        call, came_back, due: of the smallest failing case that was found.
        printed: how the printing of that call begins.
        rides: the failing case as rides of the elevator, by name, in exercises that are about rides.
        tier: where it ran, "python", "interpreter" or "gpu"; where it was not checked, the tier that it needs.
    """

    id: str
    title: str
    status: str
    seed: int | None
    property_name: str = ""
    sentence: str = ""
    call: str = ""
    came_back: str = ""
    due: str = ""
    printed: str = ""
    tier: str = "python"
    rides: Mapping[str, Trace] = field(default_factory=dict, compare=False)

    @property
    def headline(self) -> str:
        return f"{self.id} {self.title}: {SAID[self.status]}"

    @property
    def must_hold(self) -> str:
        """What should hold of an answer and did not; of a file that is no answer, the sentence says it."""
        return "" if self.status == ERROR else self.property_name

    @property
    def lines(self) -> list[tuple[str, str]]:
        """(label, text) pairs below the headline. The seed stands only where it helps, beside a failure."""
        shown = [
            ("", self.sentence),
            ("must hold", self.must_hold),
            ("the call", self.call),
            ("came back", self.came_back),
            ("was due", self.due),
            ("it printed", self.printed),
        ]
        if self.status == FAILED and self.seed is not None:
            shown.append(("seed", f"{self.seed} draws the same inputs again"))
        return [(label, clean_lines(text)) for label, text in shown if text]

    @property
    def message(self) -> str:
        """The lines as text; "" for what passed and has no speed to tell."""
        return "\n".join(f"{label:<10} {text}" if label else text for label, text in self.lines)

    def without_seed(self) -> Result:
        """The same for a student whose inputs nobody should know before they are used again."""
        return replace(self, seed=None)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON."""
        data = asdict(replace(self, rides={}))
        data["property"] = data.pop("property_name")
        data["rides"] = {name: trace.to_dict() for name, trace in self.rides.items()}
        return {**data, "message": self.message}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Result:
        """The inverse of `to_dict`."""
        values = {each.name: data[each.name] for each in fields(cls) if each.name in data}
        rides = {name: Trace.from_dict(trace) for name, trace in data["rides"].items()}
        return cls(**{**values, "property_name": data["property"], "rides": rides})


@dataclass(frozen=True)
class Report:
    """The results of one check, in the order of the tasks.

    Attributes:
        levels: how the files were shut in.
        folder, files: where the files lie, and the names of those that were read.
    """

    results: tuple[Result, ...]
    seed: int
    levels: tuple[Level, ...] = ()
    folder: Path = Path()
    files: tuple[str, ...] = ()

    def count(self, status: str) -> int:
        """How many tasks have this status."""
        return sum(result.status == status for result in self.results)

    @property
    def exit_code(self) -> int:
        """0 all that is checked here passed, 1 some did not, 2 some could not be checked, or nothing was."""
        if self.count(ERROR) or self.count(NOT_CHECKED) == len(self.results):
            return 2
        return 0 if self.count(PASSED) + self.count(NOT_CHECKED) == len(self.results) else 1

    @property
    def exit_code_so_far(self) -> int:
        """As `exit_code`, where a task that is not written yet is no failure."""
        return 0 if self.exit_code == 1 and not self.count(FAILED) else self.exit_code

    @property
    def summary(self) -> str:
        """One line: how many of each, and where it ran."""
        counts = [f"{self.count(PASSED)} of {len(self.results)} passed"]
        for status in (FAILED, NOT_WRITTEN, ERROR, NOT_CHECKED):
            if many := self.count(status):
                counts.append(f"{many} {SAID[status]}")
        tiers = {result.tier for result in self.results if result.status != NOT_CHECKED}
        return f"{', '.join(counts)} (tier: {', '.join(sorted(tiers)) or 'none'})"

    @property
    def rides(self) -> dict[str, Trace]:
        """Every failing case that is a ride, for the elevator: "ex02.1 came back", "ex02.1 was due"."""
        return {
            f"{result.id} {name}": trace for result in self.results for name, trace in result.rides.items()
        }

    def save_rides(self, folder: str | Path) -> list[Path]:
        """Write each as a Trace, `ex02.1-was-due.json`. Raises `OSError` where that cannot be done."""
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        return [trace.save(target / f"{name.replace(' ', '-')}.json") for name, trace in self.rides.items()]

    @property
    def closing(self) -> list[str]:
        """The lines below the results: how many of each, what helps, and how the files were shut in."""
        stuck = next((each.id for each in self.results if each.status in (FAILED, NOT_WRITTEN)), "")
        helps = [f"stuck? `lesson hint {stuck}`, then `lesson hint {stuck} 2` and 3"] if stuck else []
        return [self.summary, *helps, *(level.to_a_student for level in self.levels)]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON."""
        return {
            "seed": self.seed,
            "exit_code": self.exit_code,
            "summary": self.summary,
            "sandbox": [asdict(level) for level in self.levels],
            "results": [result.to_dict() for result in self.results],
        }

    def __str__(self) -> str:
        blocks = []
        for result in self.results:
            blocks.append(f"{MARKS[result.status]} {result.headline}")
            blocks += [f"    {line}" for line in result.message.splitlines()]
        return "\n".join([*blocks, *self.closing])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """The same words, set for a notebook, in light and in dark."""
        last = "".join(f"<p>{escape(line)}</p>" for line in self.closing)
        return f"<div>{''.join(map(html_of, self.results))}{last}</div>"


def html_of(result: Result) -> str:
    """One result, set for a page in light or in dark."""
    rows = "".join(_row(label, text) for label, text in result.lines)
    mark = f'<span style="color:{COLORS[result.status]}">{MARKS[result.status]}</span>'
    table = f'<table style="margin:0 0 .8em 1em">{rows}</table>' if rows else ""
    return f"<p><b>{mark} {escape(result.headline)}</b></p>{table}"


def _row(label: str, text: str) -> str:
    cell = 'style="text-align:left;vertical-align:top;padding:.1em .8em .1em 0;white-space:'
    if not label:
        return f'<tr><td colspan="2" {cell}pre-wrap">{escape(text)}</td></tr>'
    set_text = f"<code>{escape(text)}</code>" if label in CODE else escape(text)
    return f'<tr><td {cell}nowrap;opacity:.7">{label}</td><td {cell}pre-wrap">{set_text}</td></tr>'
