"""Results as JUnit XML, which CI servers and learning platforms read."""

from __future__ import annotations

from collections.abc import Iterable
from xml.etree import ElementTree

from lessonlib.checks.report import ERROR, FAILED, NOT_CHECKED, NOT_WRITTEN, Result
from lessonlib.checks.sandbox.cleaning import clean_lines

TAGS = {FAILED: "failure", NOT_WRITTEN: "failure", ERROR: "error", NOT_CHECKED: "skipped"}


def to_junit(results: Iterable[Result], suite: str = "lesson check") -> str:
    """One test case a result. A task whose speed counts has two, told apart by their titles."""
    results = list(results)
    counts = {
        tag: sum(TAGS.get(result.status) == tag for result in results)
        for tag in ("failure", "error", "skipped")
    }
    root = ElementTree.Element(
        "testsuite",
        name=_xml(suite),
        tests=str(len(results)),
        failures=str(counts["failure"]),
        errors=str(counts["error"]),
        skipped=str(counts["skipped"]),
    )
    for result in results:
        case = ElementTree.SubElement(
            root, "testcase", classname=_xml(result.id), name=_xml(f"{result.id} {result.title}")
        )
        if result.status in TAGS:
            element = ElementTree.SubElement(case, TAGS[result.status], message=_xml(_headline(result)))
            element.text = _xml(result.message)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _headline(result: Result) -> str:
    return result.must_hold or result.sentence or result.status


def _xml(text: str) -> str:
    """With nothing in it that XML cannot hold."""
    return clean_lines(text)
