"""What axe-core says of a page, shared by the tests of widgets and site."""

from __future__ import annotations

from typing import Any

from axe_playwright_python.sync_playwright import Axe

SERIOUS = ("serious", "critical")


def violations(page: Any, *within: str) -> list[str]:
    """What axe-core finds serious, one line each, in the whole page or some parts of it."""
    parts = {"include": [[part] for part in within]} if within else None
    options = {"preload": False}  # a page from a folder may not read files
    found = Axe().run(page, context=parts, options=options).response["violations"]
    return [
        f"{rule['id']}: {rule['nodes'][0]['html'][:160]} ({len(rule['nodes'])})"
        for rule in found
        if rule["impact"] in SERIOUS
    ]
