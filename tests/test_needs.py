"""What a machine lacks is said once at the end of a run, with its remedy, and all reasons have one home."""

from __future__ import annotations

import ast
from pathlib import Path

import needs
import pytest
from conftest import LONGEST

TESTS = Path(__file__).parent
ONLY_IN_NEEDS = {"pytest.skip", "pytest.importorskip", "pytest.mark.skip", "pytest.mark.skipif"}

SUITE = """
import needs
import pytest

def test_done(): pass
def test_a(): needs.CHROMIUM.skip()
@needs.CHROMIUM.unless(False)
def test_b(): pass
def test_c(): needs.ROOT.skip()
@needs.VLLM.unless(True)
def test_there(): pass
@pytest.mark.gpu
def test_d(): pass
@pytest.mark.gpu
@pytest.mark.prove
def test_e(): pass
@pytest.mark.prove
def test_f(): pass
"""
CHOSEN = ("-m", "not gpu and not prove")
LAST_LINE = (
    f"6 not checked here: 2 need {needs.CHROMIUM.what} ({needs.CHROMIUM.remedy}), "
    f"2 need {needs.GPU.what} ({needs.GPU.remedy}), 1 needs {needs.ROOT.what} ({needs.ROOT.remedy}), "
    f"1 needs {needs.PROVE.what} ({needs.PROVE.remedy})"
)


@pytest.fixture
def suite(pytester, monkeypatch):
    """A folder with tests of which few can run; call it with pytest's options for the lines that came out."""
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    pytester.makepyfile(test_some=SUITE)
    pytester.makeini("[pytest]\nmarkers =\n  gpu\n  prove\n  vllm\n")
    plugins = ("-p", "needs", "-p", "no:cacheprovider", "-q")

    def run(*options, way=pytester.runpytest_inprocess):
        return way(*plugins, *options).outlines

    return run


@pytest.mark.parametrize("workers", ["0", "2"])
def test_one_line_counts_what_was_not_checked(suite, pytester, workers):
    lines = suite(*CHOSEN, "--numprocesses", workers, way=pytester.runpytest_subprocess)
    assert [line for line in lines if "not checked" in line] == [LAST_LINE]
    assert "2 passed" in lines[-1]


def test_what_the_caller_left_out_is_not_counted(suite):
    assert not [line for line in suite("-k", "done or there") if "not checked" in line]
    assert "2 not checked here: 2 need Chromium (apt-get install chromium)" in suite("-k", "a or b", *CHOSEN)


def test_the_longest_files_are_there():
    assert len(LONGEST) == len(set(LONGEST))
    assert {f"{name}.py" for name in LONGEST} <= {path.name for path in TESTS.glob("test_*.py")}


@pytest.mark.parametrize("path", sorted(TESTS.glob("*.py")), ids=lambda path: path.stem)
def test_reasons_to_skip_have_one_home(path):
    if path.stem == "needs":
        return
    used = {
        ast.unparse(node) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)
    }
    assert not used & ONLY_IN_NEEDS, "skip by a Need of tests/needs.py, which has a remedy"
