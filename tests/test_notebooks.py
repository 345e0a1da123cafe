"""What every stored notebook must be, beside running word for word (`make nbval`)."""

import re
from pathlib import Path

import nbformat
import pytest

from lessonlib.notebooks import WIDGET_VIEW, load_rides, ride_key

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
MOST_WORDS, MOST_LINES, MOST_IGNORED = 130, 20, 3
MACHINE_PATH = re.compile(r"(?<![\w.])/(?:home|root|tmp|Users|usr|opt|mnt|var|work)/")
PLAYS = re.compile(r"^(Elevator|explorer|MemoryFilm)\(", re.M)
ONE_AS_MANY = re.compile(
    r"(?<![\d.,/×÷=-])(?<![×÷=] )\b1 (?:rider|request|slot|step|token|block|prompt|floor)s\b.{0,9}"
)
NOT_A_TERM = re.compile(
    r"Guess first\.?|\d+ minutes\.|\[?\d\d · .*", re.S
)  # bold for the eye; everything else is a term
MARKS_THAT_IGNORE = ("NBVAL_IGNORE_OUTPUT", "NBVAL_SKIP", "NBVAL_RAISES_EXCEPTION")

pytestmark = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def cells(path, kind):
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == kind]


def test_valid_and_plain(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert "widgets" not in notebook.metadata


def test_every_cell_was_executed_in_order(path):
    counts = [cell.execution_count for cell in cells(path, "code")]
    assert counts == list(range(1, len(counts) + 1))


def test_outputs_are_stored_and_clean(path):
    outputs = [output for cell in cells(path, "code") for output in cell.outputs]
    assert len(outputs) > len(cells(path, "code")) / 2
    assert all(output.output_type != "error" for output in outputs)
    assert all(output.get("name") != "stderr" for output in outputs)
    pictures = [output.data for output in outputs if "data" in output and "image/png" in output.data]
    assert len(pictures) >= 5, f"{len(pictures)} pictures are stored: a notebook has five or more"
    assert all(data.get("text/plain") for data in pictures)  # a picture says in words what it shows
    assert all(WIDGET_VIEW not in output.get("data", {}) for output in outputs)


def test_no_path_of_a_machine(path):
    for cell in nbformat.read(path, as_version=4).cells:
        texts = [cell.source] + [
            str(value)
            for output in cell.get("outputs", [])
            for kind, value in [("text", output.get("text", "")), *output.get("data", {}).items()]
            if not kind.startswith("image/")
        ]
        assert not any(MACHINE_PATH.search(text) for text in texts), cell.source[:80]


def test_one_is_no_plural(path):
    """Of what is read: words and stored outputs."""
    for cell in nbformat.read(path, as_version=4).cells:
        texts = [cell.source] if cell.cell_type == "markdown" else []
        for output in cell.get("outputs", []):
            texts += [output.get("text", ""), output.get("data", {}).get("text/plain", "")]
        found = [each for text in texts for each in ONE_AS_MANY.findall(text)]
        assert not found, cell.source[:60]


def test_few_cells_are_excused_from_comparison(path):
    excused = [c for c in cells(path, "code") if any(mark in c.source for mark in MARKS_THAT_IGNORE)]
    assert len(excused) <= MOST_IGNORED


def test_one_idea_a_cell(path):
    for cell in cells(path, "markdown"):
        prose = [line for line in cell.source.splitlines() if not line.startswith(("|", "- ", "#"))]
        assert len(" ".join(prose).split()) <= MOST_WORDS, cell.source[:60]
    for cell in cells(path, "code"):
        assert len(cell.source.splitlines()) <= MOST_LINES, cell.source[:60]


def test_opens_and_closes_as_promised(path):
    text = "\n".join(cell.source for cell in cells(path, "markdown"))
    opens = re.match(r"# \d\d · .+\n\nAfter this notebook you can", text)
    assert opens, (
        f"begin with '# NN · TITLE', an empty line, 'After this notebook you can'; not {text[:60]!r}"
    )
    for heading in ("minutes.**", "## What to carry forward", "## Exercises", "## Sources"):
        assert heading in text, f"{path.name} has no {heading!r}"


def singular(term):
    return re.sub(r"(?<=[^s])s$", "", term.strip().rstrip(".").lower())


def glossary():
    """Every word that a table of notebook 00's glossary explains; the last column is the explanation."""
    tables = [cell.source for cell in cells(NOTEBOOKS[0], "markdown") if "| is |\n|---" in cell.source]
    lines = [
        line.strip("| ").split(" | ")[:-1]
        for table in tables
        for line in table.splitlines()
        if line.startswith("|")
    ]
    return {singular(term) for line in lines for column in line for term in re.split(r"[,()]", column)}


def test_bold_is_a_term_and_the_glossary_has_it(path):
    prose = "\n".join(cell.source for cell in cells(path, "markdown"))
    terms = [term for term in re.findall(r"\*\*(.+?)\*\*", prose, re.S) if not NOT_A_TERM.fullmatch(term)]
    words = {singular(word) for term in terms for word in term.split(" and ")}
    assert not words - glossary()


def test_what_its_elevators_play_is_kept_beside_it(path):
    """For the site. A notebook that was run by `make notebooks` has a ride for each widget that plays by itself."""
    kept = load_rides(path)
    widgets = [cell for cell in cells(path, "code") if PLAYS.search(cell.source)]
    assert all(ride_key(cell.source) in kept for cell in widgets) or not kept
    assert len(kept) <= len(cells(path, "code"))
