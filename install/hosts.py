"""Write what pyproject.toml says of other people's machines: each notebook's first cell, and the README's buttons.

`[project.urls] Repository` is whose notebooks the buttons open, `[tool.lesson] wheel` what the first cell asks pip for
where the course is missing. Change them there, or the version, then run

.venv/bin/python install/hosts.py
"""

from __future__ import annotations

import tomllib
from pathlib import Path

import nbformat

from lessonlib.files import write_whole
from lessonlib.notebooks import tidy

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
BRANCH = "main"
BEGIN, END = "<!-- buttons: install/hosts.py -->\n", "<!-- end of buttons -->\n"

FIRST_LINE = (
    "# Where the course is missing (Colab, Kaggle, a hub) this installs it; elsewhere it does nothing."
)
FIRST_CELL = """\
{first_line}
import site
from importlib import invalidate_caches, util

course = util.find_spec("lessonlib")
is_new = course is None or course.origin is None  # a folder that only has its name is not the course
if is_new:
    %pip install {wheel}
    site.addsitedir(site.getusersitepackages())
    invalidate_caches()
    assert util.find_spec("lessonlib"), "pip says above why. Is there a network?"

from lessonlib import hosts

hosts.prepare(is_new)"""

HOSTS = {
    "Colab": (
        "https://colab.research.google.com/github/",
        "https://colab.research.google.com/assets/colab-badge.svg",
    ),
    "Kaggle": (
        "https://kaggle.com/kernels/welcome?src=https://github.com/",
        "https://kaggle.com/static/images/open-in-kaggle.svg",
    ),
}


def project() -> dict:
    """What pyproject.toml says."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def first_cell() -> str:
    """The source of the first code cell of every notebook."""
    settings = project()
    wheel = settings["tool"]["lesson"]["wheel"].format(version=settings["project"]["version"])
    return FIRST_CELL.format(first_line=FIRST_LINE, wheel=wheel)


def buttons() -> str:
    """A row for each notebook with a button for each host, in Markdown."""
    repository = project()["project"]["urls"]["Repository"].removeprefix("https://github.com/")
    rows = [
        [f"`{path.stem}`", *(_button(host, path.stem, repository) for host in HOSTS)] for path in NOTEBOOKS
    ]
    table = [["notebook", *(f"on {host}" for host in HOSTS)], ["---"] * (1 + len(HOSTS)), *rows]
    pictures = [f"[{host}]: {picture}" for host, (_, picture) in HOSTS.items()]
    return "\n".join([*(f"| {' | '.join(row)} |" for row in table), "", *pictures, ""])


def _button(host: str, stem: str, repository: str) -> str:
    opens = f"{HOSTS[host][0]}{repository}/blob/{BRANCH}/notebooks/{stem}.ipynb"
    return f"[![Open {stem[:2]} on {host}][{host}]]({opens})"


def write_cell(path: Path) -> bool:
    """Put the first cell into a notebook. Its other cells keep their outputs and are numbered anew.

    Returns whether the notebook was changed.
    """
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    if code[0].source == first_cell():
        return False
    if code[0].source.startswith(FIRST_LINE):
        code[0].source = first_cell()
    else:
        notebook.cells.insert(1, nbformat.v4.new_code_cell(first_cell()))
    for count, cell in enumerate((cell for cell in notebook.cells if cell.cell_type == "code"), start=1):
        cell.execution_count = count
        for output in cell.outputs:
            if "execution_count" in output:
                output.execution_count = count
    tidy(notebook)
    write_whole(path, nbformat.writes(notebook) + "\n")
    return True


def with_buttons(text: str) -> str:
    """A page with the buttons between its two marks."""
    before, _, rest = text.partition(BEGIN)
    return before + BEGIN + "\n" + buttons() + "\n" + END + rest.partition(END)[2]


def main() -> None:
    """Write all of it and say what was not in step."""
    page = ROOT / "README.md"
    text = page.read_text(encoding="utf-8")
    changed = [path.name for path in NOTEBOOKS if write_cell(path)]
    if with_buttons(text) != text:
        write_whole(page, with_buttons(text))
        changed.append(page.name)
    print(f"wrote {', '.join(changed)}" if changed else "all in step")


if __name__ == "__main__":
    main()
