"""The whole of grading a class: read, check what is not done yet, write each record as it comes, then the tables."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from lessonlib.checks.sandbox.cleaning import clean
from lessonlib.checks.sandbox.confine import Level
from lessonlib.errors import CourseError
from lessonlib.files import write_whole
from lessonlib.grading import similarity, tables
from lessonlib.grading.checking import Checking
from lessonlib.grading.layouts import (
    MOODLE,
    NO_SUBMISSION,
    NOT_GRADED,
    Collected,
    Handin,
    LeftOut,
    collect,
)
from lessonlib.grading.overrides import OVERRIDES_FILE, Override, read_overrides
from lessonlib.grading.pages import class_page
from lessonlib.grading.records import Record, overridden, write_record
from lessonlib.grading.roster import Matched, Roster, match, read_roster
from lessonlib.grading.settings import Results, Settings

LEFT_OUT_FILE = "left_out.csv"
MOST_NAMED = 20  # on the terminal


@dataclass(frozen=True)
class Grades:
    """What became of a class.

    Attributes:
        records: one for each student who was graded, in order of name.
        left_out: what and who is not in the tables, and why.
    """

    records: tuple[Record, ...]
    left_out: tuple[LeftOut, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether everything that was handed in is in the tables, and could be read."""
        is_handed_in = any(each.kind != NO_SUBMISSION for each in self.left_out)
        return not is_handed_in and not any(record["problem"] for record in self.records)

    @property
    def summary(self) -> str:
        """How many, who is left out, what was not handed in, and how well files were shut in when they ran."""
        problems = sum(bool(record["problem"]) for record in self.records)
        counts = [f"{len(self.records)} graded"]
        counts += [f"{problems} of them could not be read"] if problems else []
        kinds = dict.fromkeys(each.kind for each in self.left_out)
        lines = [", ".join(counts), *(self._of_kind(kind) for kind in kinds)]
        missing = tables.not_there(tables.obstacles_of(self.records))
        absent = [f"{file} by {many}" for file, many in sorted(missing.items())]
        lines += [f"not handed in: {', '.join(absent)}"] if absent else []
        levels = {
            str(Level(level["name"], tuple(level["not_contained"])))
            for record in self.records
            for level in record["sandbox"]
        }
        return "\n".join([*lines, *sorted(levels)])

    def _of_kind(self, kind: str) -> str:
        names = [each.name for each in self.left_out if each.kind == kind]
        more = f" and {len(names) - MOST_NAMED} more, in {LEFT_OUT_FILE}" if len(names) > MOST_NAMED else ""
        return clean(f"{kind}: {', '.join(names[:MOST_NAMED])}{more}")


def grade(
    folder: str | Path,
    out: str | Path,
    settings: Settings | None = None,
    *,
    layout: str | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
    resume: bool = False,
    regrade: Collection[str] = (),
    roster: str | Path | None = None,
    overrides: str | Path | None = None,
    log: Callable[[str], None] = print,
) -> Grades:
    """Grade a class.

    Args:
        folder: what was handed in: a folder, or the zip that a platform makes of one.
        out: where the results go: a new folder, or with `resume` the one of an earlier run.
        settings: what is graded, and by what.
        layout: one of `layouts.LAYOUTS`; guessed where it is clear unless given.
        workers: processes of this machine; one a core unless given.
        scheduler: the address of a Dask scheduler to use instead.
        resume: leave the students alone who are in `out` with the same files.
        regrade: students to grade again all the same; implies `resume`.
        roster: a gradebook exported from Canvas, or Moodle's grading worksheet.
        overrides: points given by hand, as in `overrides`; those of the run before unless given.
        log: gets each line for the person who grades.

    Raises `CourseError` where nothing can be done: before anything is graded, or where `out` can be written no more.
    """
    source, out, settings = Path(folder), Path(out), settings or Settings()
    collected = collect(source, layout)
    found = read_roster(Path(roster)) if roster else None
    matched = (
        match(found, collected.handins, collected.layout) if found else Matched(collected.handins, {}, ())
    )
    with Results(out, settings, resume or bool(regrade)) as results:
        _check_names(regrade, matched.handins)
        given = _overrides(out, overrides, results.run["weights"], matched.handins)
        _log_what_is_there(collected, matched, found, settings.assignment, log)
        with Checking(source, results, workers, scheduler, regrade, log) as checking:
            checking.check(matched.handins)
        checked = [checking.records[name] for name in sorted(checking.records)]
        records = _with_overrides(out, checked, given, results.run["weights"])
        lost = [LeftOut(name, reason, NOT_GRADED) for name, reason in sorted(checking.lost.items())]
        left_out = (*collected.left_out, *matched.left_out, *lost)
        pairs = similarity.alike(checking.shingles, similarity.of_course())
        graded = tables.Graded(
            records, matched.handins, settings.assignment, collected.layout, found, matched.rows
        )
        _write_tables(out, graded, left_out, pairs, results.run["weights"])
        if overrides is not None:
            shutil.copyfile(overrides, out / OVERRIDES_FILE)
    return Grades(tuple(records), left_out)


def _check_names(regrade: Collection[str], handins: Sequence[Handin]) -> None:
    names = [handin.student for handin in handins]
    for name in regrade:
        if name not in names:
            raise CourseError(f"no student {name!r} to grade again{_did_you_mean(name, names)}")


def _did_you_mean(name: str, names: Sequence[str]) -> str:
    close = get_close_matches(name, names, n=3)
    return f": there is {', '.join(close or names[:3])}"


def _overrides(
    out: Path, path: str | Path | None, tasks: Mapping[str, float], handins: Sequence[Handin]
) -> dict[str, Override]:
    """Student → what they are given by hand. Raises `CourseError` for a student who is not in the class."""
    if path is None:
        kept = out / OVERRIDES_FILE
        return read_overrides(kept, tasks) if kept.is_file() else {}
    given = read_overrides(Path(path), tasks)
    names = [handin.student for handin in handins]
    for student in given:
        if student not in names:
            raise CourseError(
                f"{path} has points for {student!r}, who handed in nothing{_did_you_mean(student, names)}"
            )
    return given


def _log_what_is_there(
    collected: Collected, matched: Matched, roster: Roster | None, assignment: str, log: Callable[[str], None]
) -> None:
    if collected.guessed:
        log(
            f"layout: {collected.layout}, as {collected.guessed} looks; --from names another. "
            f"{len(collected.handins)} students"
        )
    if roster and roster.assignments and not roster.assignment(assignment):
        log(
            clean(
                f"the gradebook has no {assignment!r}: grades_canvas.csv makes a new column of it; "
                f"--assignment fills one of its own: {', '.join(roster.assignments)}"
            )
        )
    for each in (*collected.left_out, *matched.left_out):
        if each.kind != NO_SUBMISSION:
            log(clean(f"left out: {each.name}: {each.reason}"))


def _with_overrides(
    out: Path, records: Sequence[Record], given: Mapping[str, Override], weights: Mapping[str, float]
) -> list[Record]:
    """The records with the points that were given by hand; those that this changes are written again."""
    changed = [overridden(record, given.get(record["student"]), weights) for record in records]
    return [
        now if now == before else write_record(out, now) for before, now in zip(records, changed, strict=True)
    ]


# ----- the class -----


def _write_tables(
    out: Path,
    graded: tables.Graded,
    left_out: Sequence[LeftOut],
    pairs: Sequence[similarity.Pair],
    weights: Mapping[str, float],
) -> None:
    records = graded.records
    mistakes = tables.commonest_mistakes(records)
    picture = tables.histogram(records)
    found = tables.obstacles_of(records)
    files: dict[str, str | bytes] = {
        "grades_nbgrader.csv": tables.nbgrader_csv(graded),
        "grades_canvas.csv": tables.canvas_csv(graded),
        "grades_tasks.csv": tables.tasks_csv(graded, weights),
        "mistakes.csv": tables.mistakes_csv(mistakes),
        "obstacles.csv": tables.obstacles_csv(found),
        LEFT_OUT_FILE: tables.left_out_csv(left_out),
        "similar.csv": tables.similar_csv(pairs),
        "histogram.png": picture.png(),
        "index.html": class_page(records, mistakes, found, left_out, pairs, picture),
    }
    if graded.layout == MOODLE or (graded.roster and graded.roster.platform == MOODLE):
        files["grades_moodle.csv"] = tables.moodle_csv(graded)
    for name, content in files.items():
        write_whole(out / name, content)
