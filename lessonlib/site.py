"""The course as a folder of pages that needs no network: `python -m lessonlib.site --out build/site`.

The notebooks are shown as they are stored, nothing is executed. Elevators play from the rides that
`lessonlib.notebooks` recorded beside them.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import nbformat
from nbformat import NotebookNode
from sphinx.cmd.build import build_main

from lessonlib import layout
from lessonlib.errors import CourseError
from lessonlib.notebooks import load_rides, ride_file, ride_key
from lessonlib.viz.widget import MODEL, STYLE, script

PARTS = layout.source() / layout.SITE
NOTEBOOK_LINK = re.compile(r"\[([^\]]+)\]\((\d\d_\w+\.ipynb)\)")
MOST_COLUMNS = 14
MOST_CELLS = 400  # of a table; larger ones are counted, and read in their file


def build(out: Path, notebooks: Sequence[Path], results: Path | None = None) -> Path:
    """Write the site into `out`, which is emptied first. Returns its first page.

    Recorded results are those in `results`, by default the course's.

    Raises `CourseError` where there is nothing to show, where `out` holds something that is no site, and where
    Sphinx complains about anything.
    """
    if not notebooks:
        raise CourseError("no notebooks to show: give some, as notebooks/*.ipynb")
    if out.exists() and any(out.iterdir()) and not (out / "searchindex.js").is_file():
        raise CourseError(f"{out} holds something else: give an empty or a new folder")
    shutil.rmtree(out, ignore_errors=True)
    source = out.parent / f"{out.name}-source"
    shutil.rmtree(source, ignore_errors=True)
    _lay_out(source, notebooks, results or layout.results())
    static = ["-D", f"html_static_path={source.resolve() / '_static'}"]
    quiet = ["-q", "-W", "--keep-going", "-b", "html", "-c", str(PARTS)]
    if build_main([*quiet, *static, str(source), str(out)]):
        raise CourseError("Sphinx found something wrong, see above: mend it in the page that it names")
    shutil.rmtree(source)
    for leftover in (".doctrees", "_sources"):
        shutil.rmtree(out / leftover, ignore_errors=True)
    return out / "index.html"


def _lay_out(source: Path, notebooks: Sequence[Path], results: Path) -> None:
    """What Sphinx reads: the pages, the widgets' scripts, the rides."""
    static = source / "_static"
    (static / "rides").mkdir(parents=True)
    (source / "files").mkdir()
    names = {path.name for path in notebooks}
    for path in notebooks:
        shutil.copy(path, source / "files")
        nbformat.write(_page(path, names, static / "rides"), source / path.name)
    for path in _records(results):
        shutil.copy(path, source / "files")
    (source / "recorded.md").write_text(recorded_page(results), encoding="utf-8")
    (source / "index.md").write_text(_index(notebooks), encoding="utf-8")
    shutil.copy(STYLE, static)
    shutil.copy(PARTS / "site.css", static)
    widgets = "\n".join(_classic(widget) for widget in ("elevator", "film"))
    own = (PARTS / "elevators.js").read_text(encoding="utf-8")
    (static / "elevators.js").write_text(
        f'document.currentScript.id = "elevators-script";\nwindow.lessonWidgets = {{}};\n{widgets}\n'
        f"window.lessonModel = (() => {{\n{MODEL}\nreturn modelOf;\n}})();\n{own}",
        encoding="utf-8",
    )


def _index(notebooks: Sequence[Path]) -> str:
    """The first page: the ladder, what each notebook is for, and an elevator to play with at once."""
    playing = [_ride_name(path, key) for path in notebooks for key in list(load_rides(path))[:1]]
    parts = [(PARTS / "index.md").read_text(encoding="utf-8")]
    parts += [f'<div class="cell_output"><div data-ride="{name}"></div></div>\n' for name in playing[:1]]
    parts += [_entry(path) for path in notebooks]
    pages = [*(path.stem for path in notebooks), "recorded"]
    return "\n".join([*parts, "", "```{toctree}", ":hidden:", *pages, "```", ""])


def _entry(path: Path) -> str:
    """One line of the ladder: a notebook's title, its minutes and the first thing that it promises."""
    opening = nbformat.read(path, as_version=4).cells[0].source
    title = opening.splitlines()[0].removeprefix("# ")
    minutes = re.search(r"\*\*(\d+) minutes", opening)
    promise = re.search(r"^- (.+?)[;.]?$", opening, re.M)
    words = [f"[{title}]({path.name})", f"{minutes[1]} minutes" if minutes else ""]
    return f"- {', '.join(filter(None, words))}" + (f": {promise[1]}" if promise else "")


def _ride_name(path: Path, key: str) -> str:
    return f"{path.stem[:2]}-{key}"


def _classic(widget: str) -> str:
    """A widget's module as a plain script: from a folder, browsers load no modules."""
    body = script(widget).replace("export default { render };", "return render;")
    return f"window.lessonWidgets.{widget} = (() => {{\n{body}\n}})();"


# ----- a notebook's page -----


def _page(path: Path, names: set[str], rides: Path) -> NotebookNode:
    """The notebook with a way to download it, words for its pictures, and a place for each elevator."""
    notebook = nbformat.read(path, as_version=4)
    recorded = load_rides(path)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = NOTEBOOK_LINK.sub(
                lambda link: link[0] if link[2] in names else link[1], cell.source
            )
            continue
        _describe_pictures(cell)
        if (key := ride_key(cell.source)) in recorded:
            name = _ride_name(path, key)
            held = json.dumps(recorded[key])
            (rides / f"{name}.js").write_text(f'window.lessonRides["{name}"] = {held};\n', encoding="utf-8")
            place = nbformat.v4.new_output("display_data", {"text/html": f'<div data-ride="{name}"></div>'})
            cell.outputs.append(place)
    download = nbformat.v4.new_markdown_cell(f"{{download}}`Download this notebook <files/{path.name}>`")
    notebook.cells.insert(1, download)
    return notebook


def _describe_pictures(cell: NotebookNode) -> None:
    """The words that a picture is stored with become its text for those who do not see it."""
    for output in cell.outputs:
        data = output.get("data", {})
        if "image/png" in data:
            words = re.sub(r"^Picture\((.*)\)$", r"\1", data.get("text/plain", ""), flags=re.S)
            cell.metadata["mystnb"] = {"image": {"alt": " ".join(words.split())}}


# ----- recorded results -----


def _records(results: Path) -> list[Path]:
    return sorted(path for path in results.iterdir() if path.suffix in (".json", ".txt"))


def recorded_page(results: Path) -> str:
    """Every recorded result as tables under its machine, date and command, in MyST Markdown."""
    parts = ["# What was recorded", "", "Measured with the course's own commands, on the machines named.", ""]
    for path in _records(results):
        parts += [f"## {path.stem}", "", f"{{download}}`{path.name} <files/{path.name}>`", ""]
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            parts += ["```{raw} html", *_result(json.loads(text)), "```", ""]
        else:
            parts += ["```{code-block} text", text.rstrip(), "```", ""]
    return "\n".join(parts)


def _result(result: Mapping[str, Any]) -> Iterator[str]:
    facts = {key: value for key, value in _flat(result).items() if not _in_table(key, result)}
    yield _table("facts", [{"what": key, "value": value} for key, value in facts.items()])
    for name, rows in _tables(result):
        yield _table(name, rows)


def _in_table(key: str, result: Mapping[str, Any]) -> bool:
    """Whether a dotted key lies in one of the tables."""
    return any(key.startswith(f"{name}.") for name, _ in _tables(result))


def _tables(result: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Lists of records, and records of alike records, wherever they are in a result."""
    for key, value in result.items():
        name = f"{path}.{key}" if path else key
        if isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
            yield name, [_flat(row) for row in value]
        elif isinstance(value, dict) and _is_grid(value):
            yield name, _grid(value)
        elif isinstance(value, dict):
            yield from _tables(value, name)


def _is_grid(value: Mapping[str, Any]) -> bool:
    rows = list(value.values())
    return len(rows) > 1 and all(
        isinstance(row, dict) and row and row.keys() == rows[0].keys() for row in rows
    )


def _grid(value: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row each, or a column each where that is narrower."""
    rows = [{"": key, **_flat(row)} for key, row in value.items()]
    if len(rows[0]) <= MOST_COLUMNS:
        return rows
    columns = list(dict.fromkeys(column for row in rows for column in row if column))
    return [{"": column, **{str(row[""]): row.get(column, "") for row in rows}} for column in columns]


def _flat(row: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Nested records as one, with dots in the names."""
    flat: dict[str, Any] = {}
    for key, value in row.items():
        name = f"{path}.{key}" if path else str(key)
        if isinstance(value, dict):
            flat |= _flat(value, name)
        elif not isinstance(value, list) or not value or not isinstance(value[0], dict):
            flat[name] = ", ".join(map(str, value)) if isinstance(value, list) else value
    return flat


def _table(name: str, rows: Sequence[Mapping[str, Any]]) -> str:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    if len(columns) * len(rows) > MOST_CELLS:
        return f"<p>{escape(name)}: {len(rows):,} rows of {len(columns):,} columns, in the file.</p>"
    head = "".join(f'<th scope="col">{escape(column) or "&nbsp;"}</th>' for column in columns)
    body = "\n".join(f"<tr>{''.join(_cell(row.get(column, '')) for column in columns)}</tr>" for row in rows)
    caption = escape(name)
    return (
        f'<div class="recorded" role="region" aria-label="{caption}" tabindex="0"><table><caption>{caption}</caption>'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>"
    )


def _cell(value: Any) -> str:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return (
            f'<td class="number">{value:,}</td>'
            if isinstance(value, int)
            else f'<td class="number">{value:,.4g}</td>'
        )
    return f"<td>{escape(str(value))}</td>"


# ----- links -----


class _Links(HTMLParser):
    """The ids of a page, what it points at, and what of that it loads by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.targets: list[str] = []
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id" and value:
                self.ids.add(value)
            elif name in ("href", "src") and value:
                self.targets.append(value)
                if tag != "a":
                    self.loads.append(value)


def dead_links(site: Path) -> list[str]:
    """ "page: target" for each link, script and picture of a site that leads nowhere within it."""
    pages = {}
    for path in sorted(site.rglob("*.html")):
        pages[path.resolve()] = page = _Links()
        page.feed(path.read_text(encoding="utf-8"))
    return [
        f"{path.relative_to(site.resolve())}: {target}"
        for path, page in pages.items()
        for target in page.targets
        if not _leads_somewhere(path, target, pages)
    ]


def _leads_somewhere(path: Path, target: str, pages: Mapping[Path, _Links]) -> bool:
    parts = urlsplit(target)
    if parts.scheme or parts.netloc:  # the world outside: not looked at, since there may be no network
        return True
    there = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if not there.is_file():
        return False
    return not parts.fragment or there not in pages or unquote(parts.fragment) in pages[there].ids


def main(arguments: Sequence[str] | None = None) -> int:
    """Build the site and look for dead links. Returns the exit code."""
    course = layout.home()
    parser = argparse.ArgumentParser(prog="python -m lessonlib.site", description=__doc__)
    parser.add_argument(
        "notebooks", nargs="*", type=Path, default=sorted((course / "notebooks").glob("*.ipynb"))
    )
    parser.add_argument("--out", type=Path, default=course / "build" / "site")
    options = parser.parse_args(arguments)
    try:
        first = build(options.out, options.notebooks)
        if dead := dead_links(options.out):
            raise CourseError(f"{len(dead)} dead links: {'; '.join(dead[:5])}")
    except CourseError as error:
        print(f"site: {error}", file=sys.stderr)
        return 2
    still = [path.name for path in options.notebooks if not ride_file(path).is_file()]
    print(
        f"site: {first}"
        + (f"; no elevator plays in {', '.join(still)}: run `make notebooks`" if still else "")
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
