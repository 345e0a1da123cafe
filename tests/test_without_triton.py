"""Where there is no Triton: what runs all the same, what is recorded, and what says that it was not checked.

`make wheel` runs the notebooks that need no kernels in such an environment.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import nbformat
import pytest
import without_triton
from nbformat.v4 import new_code_cell, new_notebook, new_output

from lessonlib import unrun

ROOT = Path(__file__).parents[1]
STRICT = ["-m", "pytest", "--nbval", "--nbval-current-env", "--nbval-cell-timeout=120", "-rs"]
PLUGINS = ["-p", "lessonlib.nbval_kernel", "-p", "no:cacheprovider", "-p", "no:xdist"]


@pytest.fixture(scope="module")
def python(tmp_path_factory) -> Path:
    return without_triton.make(tmp_path_factory.mktemp("environment"))


def run(
    python: Path, *arguments: str | Path, cwd: Path = ROOT, **variables: str
) -> subprocess.CompletedProcess:
    environment = {
        name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"
    } | variables
    command = [str(python), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=600)


def lesson(python: Path, *words: str | Path) -> subprocess.CompletedProcess:
    return run(python, "-m", "lessonlib.cli", *words)


def test_it_is_gone_and_all_else_is_there(python: Path) -> None:
    code = "import torch, numba, transformers, kernels, lessonlib.engine; import triton"
    done = run(python, "-c", code)
    assert "No module named 'triton'" in done.stderr.splitlines()[-1]


def test_notebook_04_runs_what_it_can_and_skips_the_rest(python: Path) -> None:
    done = run(python, *STRICT, *PLUGINS, ROOT / "notebooks" / "04_triton_paged_attention.ipynb")
    assert done.returncode == 0, done.stdout[-3000:]
    passed, skipped = (int(word.split()[0]) for word in done.stdout.splitlines()[-1].split(", "))
    assert passed > 15
    assert skipped > 15
    assert f"SKIPPED [{skipped}] " in done.stdout
    assert "not checked here: Triton is not installed here" in done.stdout


CELLS = (
    'from lessonlib.unrun import need_triton\nneed_triton("small.ipynb")',
    "x, y = 1, 2",
    "from kernels import ladder\nprint(ladder.__name__)\ny = ladder",
    "[y for y in range(x)]",
    "ladder.loop",
)


def small_notebook(folder: Path, count: int = len(CELLS)) -> Path:
    """Some of CELLS, of which the third needs Triton: what is stored for it was made up."""
    made_up = [new_output("stream", text="tile 77\n")]
    stored = [[], [], made_up, []]
    cells = [
        new_code_cell(source, outputs=outputs, execution_count=1)
        for source, outputs in zip(CELLS[:count], stored, strict=False)
    ]
    path = folder / "small.ipynb"
    nbformat.write(new_notebook(cells=cells), path)
    return path


def test_what_was_recorded_is_shown_in_its_place(python: Path, tmp_path: Path) -> None:
    small_notebook(tmp_path)
    code = (
        "import json, nbformat; from nbclient import NotebookClient\n"
        "notebook = nbformat.read('small.ipynb', 4)\n"
        f"notebook.cells.append(nbformat.v4.new_code_cell({CELLS[-1]!r}))\n"
        "NotebookClient(notebook).execute()\n"
        "print(json.dumps([[out.get('text') or out['data']['text/plain'] for out in cell.outputs]\n"
        "                  for cell in notebook.cells]))"
    )
    first, nothing, recorded, live, unknown = json.loads(run(python, "-c", code, cwd=tmp_path).stdout)
    assert "this notebook cannot run its kernels" in first[0]
    assert "pip install triton" in first[0]
    assert (nothing, live) == ([], ["[0]"])
    assert recorded == ["Not run: Triton is not installed here. Recorded on another machine.", "tile 77\n"]
    assert "Nothing is recorded for a cell with these lines" in unknown[0]


def test_a_notebook_that_was_not_run_is_not_written(python: Path, tmp_path: Path) -> None:
    path = small_notebook(tmp_path, count=1)
    before = path.read_bytes()
    done = run(python, "-m", "lessonlib.notebooks", path)
    assert done.returncode == 2
    assert "small.ipynb cannot be executed here: Triton is not installed here; it was left" in done.stderr
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("cells", "are_run"),
    [
        (("import kernels.attention as a", "a", "a = 1", "a"), (False, False, True, True)),
        (("from kernels import ladder, reference", "reference"), (False, False)),
        (("from kernels import reference", "reference"), (True, True)),
        (("x = [] if 0 else __import__\nimport triton", "x"), (False, False)),
        (("for i in range(3):\n    import triton", "[i for i in range(2)]", "i"), (False, True, False)),
        (("import triton", "def f():\n    return triton.jit", "f()"), (False, False, False)),
        (("import triton", "def f(triton):\n    return triton", "f(1)"), (False, True, True)),
        (("import triton", "triton = 2\ntriton + 1"), (False, True)),
        (("import triton", "x = triton", "x = x + 1"), (False, False, False)),
        (("import triton", "class C:\n    y = triton"), (False, False)),
        (("not python at all", "await nothing"), (True, True)),
    ],
    ids=str,
)
def test_a_cell_is_run_if_all_that_it_uses_is_there(
    cells: tuple[str, ...], are_run: tuple[bool, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    with_kernels = ("triton", "kernels.attention", "kernels.ladder")
    monkeypatch.setattr(unrun, "_needs_triton", lambda module: module.startswith(with_kernels))
    recorded = unrun.Recorded({}, "why")
    assert tuple(recorded([f"{cell}\n"]) == [f"{cell}\n"] for cell in cells) == are_run


def test_doctor_names_what_is_missing_and_the_way_out(python: Path) -> None:
    done = lesson(python, "doctor", "--json")
    report = json.loads(done.stdout)
    parts = {part["name"]: part for part in report["parts"]}
    assert (done.returncode, report["tier"]) == (0, "python")
    assert not parts["triton"]["found"]
    assert parts["triton"]["remedy"] == (
        "for the kernels of notebook 04 and exercise ex04_kernel only: pip install triton"
    )


def test_exercise_04_is_checked_and_its_kernel_is_not(python: Path) -> None:
    done = lesson(python, "check", "ex04", "--from", ROOT / "solutions")
    assert done.returncode == 0, done.stdout
    assert "4 of 5 passed, 1 not checked here (tier: python)" in done.stdout
    assert "It needs tier interpreter; this machine runs tier python." in done.stdout
    assert "Triton is not installed: pip install triton." in done.stdout


@pytest.mark.parametrize(
    "words",
    [("generate", "--prompts", "prompts.txt", "--attention", "triton"), ("bench", "attention")],
    ids=" ".join,
)
def test_who_asks_for_a_kernel_is_told_in_a_line(
    python: Path, words: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "prompts.txt").write_text("Hello\n")
    done = run(python, "-m", "lessonlib.cli", *words, cwd=tmp_path)
    assert done.returncode == 2
    assert "needs Triton, which is not installed: pip install triton" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_course_runs_where_nothing_of_linux_is(python: Path, small_model: Path) -> None:
    without_vllm = {"LESSONLIB_VLLM_PYTHON": "nowhere"}
    done = run(python, ROOT / "tests" / "pretend_macos.py", small_model, **without_vllm)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    assert found["touched"] == ["/proc/cpuinfo"]  # for the processor's name, which has another source
    assert len(found["answer"]) == 4
    assert found["peak_bytes_are_getrusage's"]
    assert [status for _, status, _ in found["checks"]] == ["passed"] * 3 + ["not checked here"]
    assert "take a Linux machine" in found["checks"][-1][2]
    assert "taking all of the memory" in found["sandbox"]
    assert found["tier"] == "python"
    for name in ("triton", "sandbox", "vllm"):
        assert "Linux" in found["remedies"][name]
