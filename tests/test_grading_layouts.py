"""A class as the platforms hand it over: what is whose, which file is meant, and what goes back to them."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path

import pytest
from messy_class import as_notebook, as_zip
from synthetic_class import SOLUTIONS

from lessonlib.checks import EXERCISES
from lessonlib.errors import CourseError
from lessonlib.grading import submissions, tables
from lessonlib.grading.layouts import (
    CANVAS,
    FOLDERS,
    GRADESCOPE,
    MOODLE,
    NO_STUDENT,
    NO_SUBMISSION,
    NOT_IN_ROSTER,
    Collected,
    LeftOut,
    collect,
)
from lessonlib.grading.overrides import Override, read_overrides
from lessonlib.grading.records import overridden
from lessonlib.grading.roster import match, read_roster
from lessonlib.grading.similarity import alike, of_course, shingles

EX01, EX02 = ((SOLUTIONS / f"{name}.py").read_bytes() for name in ("ex01", "ex02"))
NEWER = 1_700_000_000

Files = dict[str, bytes]


@pytest.fixture(params=["unpacked", "the platform's zip"])
def handed_over(request, tmp_path: Path):
    """Makes what was downloaded out of {name: content}, in both of its forms."""

    def make(files: Files) -> Path:
        if request.param != "unpacked":
            (tmp_path / "download.zip").write_bytes(as_zip(files))
            return tmp_path / "download.zip"
        for name, content in files.items():
            path = tmp_path / "download" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return tmp_path / "download"

    return make


def found(source: Path, collected: Collected, *wanted: str) -> dict[str, Files]:
    """Student → exercise → text."""
    read = [submissions.read(source, each, wanted or ("ex01", "ex02")) for each in collected.handins]
    assert not any(each.problem for each in read), read
    return {each.student: each.files for each in read}


# ----- whose is what -----


def test_canvas(handed_over) -> None:
    source = handed_over(
        {
            "lovelaceada_77_12345_ex01-1.py": EX01,
            "lovelaceada_77_12346_ex02.py": EX02,
            "o'brienanna_LATE_78_12347_work.zip": as_zip({"work/ex01.py": EX01}),
            "o'brienanna_79_12348_ex01.py": EX01,  # another of that name
            "notes.txt": b"-",
        }
    )
    collected = collect(source, CANVAS)
    assert found(source, collected) == {
        "lovelaceada_77": {"ex01": EX01, "ex02": EX02},
        "o'brienanna_78": {"ex01": EX01},
        "o'brienanna_79": {"ex01": EX01},
    }
    assert [each.platform_id for each in collected.handins] == ["77", "78", "79"]
    reason = "not a name that Canvas gives: student_ID_submission_file"
    assert collected.left_out == (LeftOut("notes.txt", reason, NO_STUDENT),)


@pytest.mark.parametrize("last", ["_", ""])
def test_moodle(handed_over, last: str) -> None:
    ada, zoe = (f"{name}_assignsubmission_file{last}" for name in ("Ada Lovelace_123", "Zoë (2) D’Arc_124"))
    source = handed_over(
        {
            f"{ada}/ex01.py": EX01,
            f"{ada}/ex02.py": EX02,
            f"{zoe}/work.zip": as_zip({"exercises\\ex01.py": EX01}),
            "Bob Babbage_125_assignsubmission_onlinetext_/onlinetext.html": b"<p>my answer",
            "Flat File_126_assignsubmission_file_ex01.py": EX01,
        }
    )
    collected = collect(source)
    assert (collected.layout, collected.guessed) == (MOODLE, ada)
    assert found(source, collected) == {
        "Ada Lovelace_123": {"ex01": EX01, "ex02": EX02},
        "Flat File_126": {"ex01": EX01},
        "Zoë (2) D’Arc_124": {"ex01": EX01},
    }
    name = "Bob Babbage_125_assignsubmission_onlinetext_"
    assert collected.left_out == (LeftOut(name, "a text that was typed in, and no file", NO_STUDENT),)


METADATA = b"""---
submission_98:
  :submitters:
  - :name: Ada Lovelace
    :sid: '1815'
    :email: ada@example.org
  - :name: Charles Babbage
    :sid:
    :email: charles@example.org
  :created_at: 2026-11-20 10:00:00.0 -08:00
submission_99:
  :submitters:
  - :name: Grace Hopper
    :sid: '1906'
    :email: grace@example.org
"""


@pytest.mark.parametrize("above", ["", "assignment_5_export/"])
def test_gradescope(handed_over, above: str) -> None:
    files = {
        "submission_98/ex01.py": EX01,
        "submission_99/ex02.py": EX02,
        "submission_metadata.yml": METADATA,
    }
    source = handed_over({f"{above}{name}": content for name, content in files.items()})
    collected = collect(source)
    assert collected.layout == GRADESCOPE
    assert found(source, collected) == {
        "Ada Lovelace_1815": {"ex01": EX01},
        "Charles Babbage_charles@example.org": {"ex01": EX01},
        "Grace Hopper_1906": {"ex02": EX02},
    }
    assert not collected.left_out


def test_gradescope_without_its_list_is_named_by_number(handed_over) -> None:
    source = handed_over({"submission_98/ex01.py": EX01, "submission_99/ex02.py": EX02})
    assert [each.student for each in collect(source).handins] == ["submission_98", "submission_99"]


def test_folders(handed_over) -> None:
    source = handed_over({"ada/ex01.py": EX01, "bob.zip": as_zip({"ex02.py": EX02}), "ex01.py": EX01})
    collected = collect(source)
    assert (collected.layout, collected.guessed) == (FOLDERS, "")
    assert found(source, collected) == {"ada": {"ex01": EX01}, "bob": {"ex02": EX02}}
    assert collected.left_out == (LeftOut("ex01.py", "neither a folder nor a zip", NO_STUDENT),)


def test_names_and_links_beside_submissions_are_left_out_and_said(tmp_path: Path) -> None:
    (tmp_path / "ada").mkdir()
    (tmp_path / "=HYPERLINK(1)").mkdir()
    (tmp_path / "eve").symlink_to(SOLUTIONS)
    collected = collect(tmp_path)
    assert [handin.student for handin in collected.handins] == ["ada"]
    assert [each.name for each in collected.left_out] == ["=HYPERLINK(1)", "eve"]


@pytest.mark.parametrize(
    "names",
    [("ada", "ada.zip"), ("Zoë", "Zoe\u0308.zip"), ("Ada", "ada.tar.gz"), ("अनुष्का", "अनु\u200dष्का.zip")],
)
def test_a_student_who_is_there_twice_is_named_with_both(names: tuple[str, str], tmp_path: Path) -> None:
    (tmp_path / names[0]).mkdir()
    (tmp_path / names[1]).write_bytes(as_zip({"ex01.py": EX01}))
    (handin,) = collect(tmp_path).handins
    assert "is here more than once: " in handin.problem
    assert all(name in handin.problem for name in names)


@pytest.mark.parametrize("layout", [MOODLE, GRADESCOPE, CANVAS])
def test_a_layout_that_is_not_clear_is_asked_for(layout: str, tmp_path: Path) -> None:
    name = {MOODLE: "Ada_1_assignsubmission_file_/x", GRADESCOPE: "submission_1/x", CANVAS: "ada_1_2_ex01.py"}
    for each in (name[layout], "bob/x", "eve/x"):
        (tmp_path / each).parent.mkdir(exist_ok=True)
        (tmp_path / each).write_text("x")
    with pytest.raises(
        CourseError, match=rf"1 of 3 names look like {layout}'s, such as .*; say --from {layout}"
    ):
        collect(tmp_path)
    assert {"bob", "eve"} <= {each.student for each in collect(tmp_path, FOLDERS).handins}


# ----- which file is meant -----


def take(folder: Path, *wanted: str) -> submissions.Submission:
    (handin,) = collect(folder, FOLDERS).handins
    return submissions.read(folder, handin, wanted or ["ex01"])


@pytest.mark.parametrize(
    "name",
    ["ex01-1.py", "ex01 (1).py", "EX01.py", "Ex01.PY", "ex1.py", "Copy of ex01.py", "ex01_final.py", "ex01.py.txt",
     "01_mine.py", "exercise01.py", "ex_01.py", "ex01 - Kopie.py", "ex01.ada.py", "work\\ex01 (2).py"],
)  # fmt: skip
def test_a_near_miss_is_taken_and_said(name: str, tmp_path: Path) -> None:
    (tmp_path / "ada.zip").write_bytes(as_zip({name: EX01}))
    ada = take(tmp_path)
    assert ada.files == {"ex01": EX01}
    shown = name.replace("\\", "/")
    assert f"There is no ex01.py: {shown} was taken." in ada.notes


@pytest.mark.parametrize(
    "name", ["Copy of ex01.ipynb", "EX01.ipynb", "01_the_elevator (1).ipynb", "ex01.ipynb.txt"]
)
def test_a_notebook_by_another_name_is_taken_and_said(name: str, tmp_path: Path) -> None:
    (tmp_path / "ada.zip").write_bytes(as_zip({name: as_notebook(EX01.decode())}))
    ada = take(tmp_path)
    assert ada.notes == (f"ex01.py was taken from {name}.",)


@pytest.mark.parametrize(
    "name", ["ex011.py", "ex10.py", "1.py", "example1.py", "ex0.py", "2024-notes.py", "ex01b.py"]
)
def test_another_name_is_no_near_miss(name: str, tmp_path: Path) -> None:
    (tmp_path / "ada.zip").write_bytes(as_zip({name: EX01}))
    assert take(tmp_path).problem == (
        f"There is none of ex01.py, and no notebook with their functions. It has {name}."
    )


def test_the_kernels_file_is_another_exercise(tmp_path: Path) -> None:
    (tmp_path / "ada.zip").write_bytes(as_zip({"ex04 kernel (1).py": EX01, "EX04.py": EX02}))
    assert take(tmp_path, *EXERCISES).files == {"ex04_kernel": EX01, "ex04": EX02}


@pytest.mark.parametrize(
    ("names", "taken"),
    [
        ((("ex01 (1).py", 0), ("ex01 (2).py", 0)), "ex01 (2).py was taken, the newest of 2."),
        ((("ex01 (1).py", 60), ("ex01 (2).py", 0)), "ex01 (1).py was taken, the newest of 2."),
        ((("ex01-1.py", 0), ("ex01-10.py", 0), ("ex01-9.py", 0)), "ex01-10.py was taken, the newest of 3."),
    ],
)
def test_the_newest_of_several_is_taken(names, taken: str, tmp_path: Path) -> None:
    (tmp_path / "ada").mkdir()
    for name, seconds in names:
        (tmp_path / "ada" / name).write_bytes(EX01)
        os.utime(tmp_path / "ada" / name, (NEWER, NEWER + seconds))
    assert take(tmp_path).notes == (f"There is no ex01.py: {taken}",)


def test_two_that_are_as_new_are_not_guessed_at(tmp_path: Path) -> None:
    (tmp_path / "ada").mkdir()
    for name in ("EX01.py", "Ex01.py"):
        (tmp_path / "ada" / name).write_bytes(EX01)
        os.utime(tmp_path / "ada" / name, (NEWER, NEWER))
    sentence = "There is no ex01.py, but EX01.py and Ex01.py, which are as new: none was taken."
    assert take(tmp_path).unreadable == {"ex01": sentence}


def test_the_name_that_was_asked_for_goes_first(tmp_path: Path) -> None:
    (tmp_path / "ada.zip").write_bytes(as_zip({"ex01.py": EX01, "ex01 (1).py": EX02}))
    ada = take(tmp_path)
    assert (ada.files, ada.notes) == ({"ex01": EX01}, ("ex01.py was taken, and not ex01 (1).py.",))


# ----- rosters -----

CANVAS_ROSTER = """\ufeffStudent,ID,SIS User ID,SIS Login ID,Section,one (991),Quiz
    Points Possible,,,,,10,5
"Lovelace, Ada",77,s77,ada,Monday,,3
"Babbage, Charles",78,s78,charles,Monday,,
"Hopper, Grace",79,s79,77,Monday,,
"Student, Test",1,,abc,Monday,,
"""
MOODLE_ROSTER = """\ufeffIdentifier,Full name,ID number,Email address,Status,Grade,Maximum Grade,Feedback comments
Participant 123,Ada Lovelace,s77,ada@example.org,Submitted,,100.00,
Participant 124,Zoë D’Arc,s78,zoe@example.org,No submission,,100.00,
"""


def roster_of(folder: Path, text: str):
    (folder / "roster.csv").write_text(text, encoding="utf-8")
    return read_roster(folder / "roster.csv")


def class_of(folder: Path, *names: str) -> Collected:
    (folder / "class").mkdir()
    for name in names:
        (folder / "class" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "class" / name).write_bytes(EX01)
    return collect(folder / "class")


def test_the_platforms_number_goes_first(tmp_path: Path) -> None:
    """Grace's login is Ada's number: in Canvas's own names that is no question."""
    roster = roster_of(tmp_path, CANVAS_ROSTER)
    collected = class_of(tmp_path, "lovelaceada_77_1_ex01.py", "noone_80_2_ex01.py")
    matched = match(roster, collected.handins, collected.layout)
    assert {student: row["Student"] for student, row in matched.rows.items()} == {
        "lovelaceada_77": "Lovelace, Ada"
    }
    assert matched.left_out == (
        LeftOut("noone_80", "no student of the roster", NOT_IN_ROSTER),
        LeftOut("Babbage, Charles (ID 78)", "nothing was handed in", NO_SUBMISSION),
        LeftOut("Hopper, Grace (ID 79)", "nothing was handed in", NO_SUBMISSION),
    )


@pytest.mark.parametrize("name", ["charles", "CHARLES", "s78", "78", "Babbage, Charles"])
def test_a_folder_is_found_by_whatever_it_is_called(name: str, tmp_path: Path) -> None:
    collected = class_of(tmp_path, f"{name}/ex01.py")
    matched = match(roster_of(tmp_path, CANVAS_ROSTER), collected.handins, collected.layout)
    assert [row["Student"] for row in matched.rows.values()] == ["Babbage, Charles"]


def test_a_folder_that_two_could_own_stops_with_both(tmp_path: Path) -> None:
    collected = class_of(tmp_path, "77/ex01.py", "ada/ex01.py")
    with pytest.raises(
        CourseError, match=r"77 could be Lovelace, Ada \(ID 77\) or Hopper, Grace \(ID 79\): rename"
    ):
        match(roster_of(tmp_path, CANVAS_ROSTER), collected.handins, collected.layout)


def test_two_folders_of_one_student_are_named(tmp_path: Path) -> None:
    collected = class_of(tmp_path, "charles/ex01.py", "s78/ex01.py", "ada/ex01.py")
    matched = match(roster_of(tmp_path, CANVAS_ROSTER), collected.handins, collected.layout)
    assert {each.student: each.problem for each in matched.handins} == {
        "ada": "",
        "charles": "Babbage, Charles (ID 78) is here more than once: charles and s78. Leave one of them there.",
    }


def test_moodles_worksheet_is_a_roster(tmp_path: Path) -> None:
    collected = class_of(tmp_path, "Ada Lovelace_123_assignsubmission_file_/ex01.py")
    matched = match(roster_of(tmp_path, MOODLE_ROSTER), collected.handins, collected.layout)
    assert matched.rows["Ada Lovelace_123"]["Email address"] == "ada@example.org"
    assert [each.name for each in matched.left_out] == ["Zoë D’Arc (Identifier Participant 124)"]


# ----- what goes back -----


def graded(folder: Path, collected: Collected, roster=None, passed: int = 1) -> tables.Graded:
    """Everyone with so many of two tasks."""
    matched = match(roster, collected.handins, collected.layout) if roster else None
    results = [
        {"id": f"ex01.{task}", "status": "passed" if task <= passed else "failed", "seed": 5}
        for task in (1, 2)
    ]
    records = [
        {
            "student": handin.student,
            "score": float(passed),
            "max_score": 2.0,
            "submitted": "",
            "override": "",
            "results": results,
        }
        for handin in (matched or collected).handins
    ]
    rows = matched.rows if matched else {}
    return tables.Graded(records, collected.handins, "one", collected.layout, roster, rows)


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_canvas_gets_its_own_columns_and_nobody_it_does_not_know(tmp_path: Path) -> None:
    collected = class_of(tmp_path, "lovelaceada_77_1_ex01.py", "noone_80_2_ex01.py")
    assert tables.canvas_csv(
        graded(tmp_path, collected, roster_of(tmp_path, CANVAS_ROSTER))
    ).splitlines() == [
        "Student,ID,SIS User ID,SIS Login ID,Section,one (991)",
        "    Points Possible,,,,,10",  # the gradebook's own scale
        '"Lovelace, Ada",77,s77,ada,Monday,5',
    ]
    without = tables.canvas_csv(graded(tmp_path, collected)).splitlines()
    assert without[0] == "Student,ID,SIS User ID,SIS Login ID,Section,one"
    assert without[2:] == ["lovelaceada,77,,,,1", "noone,80,,,,1"]


def test_moodle_gets_its_worksheet_back_on_its_scale(tmp_path: Path) -> None:
    collected = class_of(tmp_path, "Ada Lovelace_123_assignsubmission_file_/ex01.py")
    text = tables.moodle_csv(graded(tmp_path, collected, roster_of(tmp_path, MOODLE_ROSTER)))
    (row,) = rows_of(text)
    assert text.splitlines()[0] == MOODLE_ROSTER.splitlines()[0].removeprefix("\ufeff")
    assert (row["Identifier"], row["Grade"], row["Maximum Grade"]) == ("Participant 123", "50", "100.00")
    (bare,) = rows_of(tables.moodle_csv(graded(tmp_path, collected)))
    assert bare == {
        "Identifier": "Participant 123",
        "Full name": "Ada Lovelace",
        "Grade": "1",
        "Maximum Grade": "2",
    }


def test_every_task_has_a_column(tmp_path: Path) -> None:
    collected = class_of(tmp_path, "lovelaceada_77_1_ex01.py")
    (row,) = rows_of(tables.tasks_csv(graded(tmp_path, collected), {"ex01.1": 1.0, "ex01.2": 2.5}))
    expected = {"student": "lovelaceada_77", "platform_id": "77", "score": "1", "max_score": "2"}
    assert row == {**expected, "ex01.1": "1", "ex01.2": "0", "override": "", "seed": "5"}


# ----- points by hand -----


def test_points_by_hand_take_the_place_of_those_that_were_checked(tmp_path: Path) -> None:
    weights = {"ex01.1": 1.0, "ex01.2": 2.0}
    (tmp_path / "hand.toml").write_text(
        '[ada]\n"ex01.2" = 1.5\nreason = "Shown to me."\n["Babbage, Charles"]\nscore = 9\n', encoding="utf-8"
    )
    given = read_overrides(tmp_path / "hand.toml", weights)
    results = [{"id": "ex01.1", "status": "passed"}, {"id": "ex01.2", "status": "failed"}]
    record = {"student": "ada", "results": results, "score": 1.0, "max_score": 3.0, "override": ""}
    ada = overridden(record, given["ada"], weights)
    assert (ada["score"], ada["max_score"]) == (2.5, 3.0)
    assert ada["override"] == "Points given by hand: 1.5 for ex01.2. Shown to me."
    charles = overridden(record, given["Babbage, Charles"], weights)
    assert (charles["score"], charles["override"]) == (9.0, "Points given by hand: 9 in all.")
    assert overridden(ada, None, weights) == record
    assert given["ada"] == Override({"ex01.2": 1.5}, None, "Shown to me.")


# ----- who looks like whom -----

OWN = """
def drain(lengths, slots):
    waiting, aboard, steps, partly = list(reversed(lengths)), [], 0, 0
    while waiting or aboard:
        while waiting and len(aboard) < slots:
            aboard.append(waiting.pop())
        partly += len(aboard) != slots
        aboard = [left - 1 for left in aboard if left - 1 > 0]
        steps = steps + 1
    return steps, partly
"""


def test_a_copy_with_other_names_is_found_and_what_all_have_is_not() -> None:
    copied = OWN
    for name, other in (("waiting", "queue"), ("aboard", "car"), ("steps", "n"), ("partly", "holes")):
        copied = copied.replace(name, other)
    copied = f"# all mine\n\n\n{copied}  # the end\n"
    texts = {f"student {number}": EX01 for number in range(8)}
    texts |= {"ada": EX01 + OWN.encode(), "bob": b"import math\n" + copied.encode()}
    (pair,) = alike({student: {"ex01": shingles(text)} for student, text in texts.items()})
    assert (pair.exercise, pair.first, pair.second) == ("ex01", "ada", "bob")
    assert pair.share > 0.9


def test_what_was_pasted_from_the_course_is_found() -> None:
    """The checker's own answer under another name, with what it calls."""
    from lessonlib import utilization

    pasted = Path(utilization.__file__).read_bytes().replace(b"expected_static_utilization", b"mine")
    texts = {
        **{f"student {number}": EX01 for number in range(8)},
        "ada": EX01 + pasted,
        "bob": EX01 + OWN.encode(),
    }
    files = {student: {"ex01": shingles(text)} for student, text in texts.items()}
    (pair,) = alike(files, of_course())
    assert (pair.first, pair.second) == ("ada", "the course")


def test_shingles_of_what_is_no_python_are_found_too() -> None:
    assert shingles(b"") == frozenset()
    assert shingles(b"'''" * 1000 + b"\xff\x00(" * 1000)
