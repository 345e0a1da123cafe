"""The widgets' scripts, joined as they are shown, by eslint: no name that does not exist, and none without a use."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import needs

from lessonlib.viz.widget import SCRIPTS, script

ESLINT = Path(__file__).parent / "eslint"
pytestmark = needs.ESLINT.unless((ESLINT / "node_modules").is_dir() and shutil.which("node"))


def messages(text: str) -> list[dict[str, Any]]:
    """What eslint finds in a script."""
    done = subprocess.run(
        ["node", "node_modules/eslint/bin/eslint.js", "--stdin", "--format", "json"],
        cwd=ESLINT,
        input=text,
        capture_output=True,
        text=True,
    )
    assert done.returncode in (0, 1), done.stderr
    return json.loads(done.stdout)[0]["messages"]


def test_every_name_exists_and_has_a_use() -> None:
    """A function that several widgets share may be idle in one of them, not in all."""
    idle: dict[str, list[bool]] = {}  # by line of a script: whether it is idle, in each widget that has it
    for widget in SCRIPTS:
        found = messages(script(widget))
        unused = {each["line"] for each in found if each["ruleId"] == "no-unused-vars"}
        assert [each for each in found if each["ruleId"] != "no-unused-vars"] == [], widget
        for number, line in enumerate(script(widget).splitlines(), 1):
            idle.setdefault(line, []).append(number in unused)
    assert [line for line, everywhere in idle.items() if all(everywhere)] == []


def test_a_name_that_does_not_exist_is_found() -> None:
    found = messages("const a = 1;\nexport default a + b;\n")
    assert [(each["ruleId"], each["line"]) for each in found] == [("no-undef", 2)]
