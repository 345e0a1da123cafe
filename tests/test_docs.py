"""What the pages tell people to type is there to be typed."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml
from command import options_of

from lessonlib.checks.runner import select
from lessonlib.cli import lesson

ROOT = Path(__file__).parents[1]
CONTRIBUTORS = [ROOT / "CONTRIBUTING.md", ROOT / "docs" / "architecture.md"]
PAGES = [
    ROOT / "README.md",
    CONTRIBUTORS[0],
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "docs").glob("*.yml")),
]
FENCED = re.compile(r"^```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)
NAMED = re.compile(r"(?<![\w/.])((?:lessonlib|kernels|tests|docs|benchmarks)/[\w./-]*[\w/])")
COMMAND = re.compile(
    rf"^(?:.*[/ ])?lesson ((?:{'|'.join(lesson.commands)})\b.*)$",
    re.MULTILINE,
)


def code(page: Path) -> str:
    """What stands in a page as code of its own, each command on one line."""
    text = page.read_text(encoding="utf-8")
    return (text if page.suffix == ".yml" else "\n".join(FENCED.findall(text))).replace("\\\n", " ")


def test_every_command_can_be_typed() -> None:
    typed = [line for page in PAGES for line in COMMAND.findall(code(page))]
    assert len(typed) > 15
    for line in typed:
        options = options_of(*shlex.split(line, comments=True))
        select(options.get("exercises", ()))


@pytest.mark.parametrize("page", CONTRIBUTORS, ids=lambda page: page.name)
def test_every_file_that_is_named_is_there(page: Path) -> None:
    named = NAMED.findall(page.read_text(encoding="utf-8"))
    assert len(named) > 8
    missing = [name for name in named if "YOURS" not in name and not (ROOT / name).exists()]
    assert not missing


def test_every_make_target_is_there() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    typed = re.findall(r"(?:^|`|run: )make ([a-z ]+?)(?: [A-Z#]|`|\s*$)", text, re.MULTILINE)
    assert len(typed) > 10
    assert {target for line in typed for target in line.split()} <= targets


@pytest.mark.parametrize(
    ("path", "jobs"),
    [("docs/github-actions.yml", {"answers", "notebooks"}), (".github/workflows/ci.yml", {"lint", "all"})],
)
def test_the_workflow_is_one(path: str, jobs: set[str]) -> None:
    workflow = yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))
    assert workflow["jobs"].keys() == jobs
    for job in workflow["jobs"].values():
        assert job["timeout-minutes"] <= 90
        assert all(("run" in step) != ("uses" in step) for step in job["steps"])
