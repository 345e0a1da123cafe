"""The site in a real Chromium with the network cut off, from a folder, as a student opens it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from accessibility import violations
from test_viz_browser import keep_page

from lessonlib import site
from lessonlib.errors import CourseError
from lessonlib.notebooks import load_rides
from lessonlib.viz import Elevator, MemoryFilm

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
FIRST = next(path for path in NOTEBOOKS if path.stem.startswith("01"))

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The whole site, built once."""
    out = tmp_path_factory.mktemp("site") / "site"
    site.build(out, NOTEBOOKS)
    return out


@pytest.fixture
def visit(browser, folder) -> Iterator:
    """`visit(name, …)` opens a page of the site; at the end none may have had an error."""
    contexts, errors = [], []

    def open_page(name: str, width: int = 1280, **context: Any) -> Any:
        contexts.append(
            browser.new_context(viewport={"width": width, "height": 900}, offline=True, **context)
        )
        page = contexts[-1].new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: message.type == "error" and errors.append(message.text))
        page.goto((folder / name).as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert errors == []


def test_no_link_is_dead(folder) -> None:
    assert site.dead_links(folder) == []


def test_a_dead_link_is_found(tmp_path) -> None:
    (tmp_path / "a.html").write_text(
        '<a href="b.html#here">x</a><a href="b.html#gone">y</a><img src="no.png">'
    )
    (tmp_path / "b.html").write_text('<p id="here"></p><a href="https://example.org/gone">outside</a>')
    assert site.dead_links(tmp_path) == ["a.html: b.html#gone", "a.html: no.png"]


def test_nothing_comes_from_elsewhere(folder) -> None:
    """No script, style, picture or font that a page would fetch from a network."""
    for path in folder.rglob("*.html"):
        found = site._Links()
        found.feed(path.read_text())
        assert not [target for target in found.loads if "//" in target], path.name


def test_every_notebook_has_its_page_and_can_be_downloaded(visit, folder) -> None:
    page = visit("index.html")
    for path in NOTEBOOKS:
        page.goto((folder / f"{path.stem}.html").as_uri())
        link = page.get_by_role("link", name="Download this notebook")
        target = folder / link.get_attribute("href")
        assert target.read_bytes() == path.read_bytes()
        assert page.locator(".sidebar-tree").get_by_role("link").count() >= len(NOTEBOOKS) + 1


def test_search_finds_a_word_without_a_network(visit) -> None:
    page = visit("index.html")
    page.locator("input[name=q]").first.fill("straggler")
    page.keyboard.press("Enter")
    page.locator("#search-results li").first.wait_for(timeout=10_000)
    page.locator("#search-results").get_by_role("link").first.click()
    page.wait_for_load_state()
    assert "straggler" in page.inner_text("article").lower()


def test_elevators_play_from_the_folder(visit) -> None:
    page = visit(f"{FIRST.stem}.html")
    assert load_rides(FIRST), "no ride is kept: run make notebooks"
    place = page.locator("[data-ride]").first
    place.scroll_into_view_if_needed()
    elevator = place.locator(".elevator")
    elevator.wait_for()
    assert (
        not place.locator("xpath=ancestor::div[contains(@class,'cell_output')]")
        .locator("img")
        .first.is_visible()
    )
    elevator.get_by_role("button", name="One step forward").click()
    assert elevator.locator(".elevator-place").inner_text().startswith("step 1 of")
    elevator.get_by_role("button", name="Play", exact=True).click()
    page.wait_for_function("!document.querySelector('.elevator-place').textContent.startsWith('step 1 ')")
    elevator.focus()
    page.keyboard.press("Space")
    page.keyboard.press("End")
    elevator.locator(".elevator-caption").filter(has_text="all home").wait_for()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_site_follows_the_readers_theme_and_column(visit, scheme: str) -> None:
    page = visit(f"{FIRST.stem}.html", width=600, color_scheme=scheme)
    place = page.locator("[data-ride]").first
    place.scroll_into_view_if_needed()
    place.locator(".elevator").wait_for()
    assert place.locator(".elevator").get_attribute("data-theme") == scheme
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    keep_page(page, f"site-{scheme}")


def test_formulas_need_nothing_loaded(visit) -> None:
    page = visit(f"{FIRST.stem}.html")
    assert page.locator("math").count() >= 5
    assert page.locator("math").first.bounding_box()["height"] > 8
    assert "$" not in page.locator("math").first.text_content()


def test_recorded_results_are_tables_with_machine_date_and_command(visit) -> None:
    page = visit("recorded.html")
    for path in sorted((ROOT / "benchmarks" / "results").glob("*.json")):
        part = page.locator(f"section#{path.stem.replace('_', '-').lower()}")
        words = part.inner_text()
        assert json.loads(path.read_text())["command"][:40] in words
        for fact in ("machine", "date", "command", "commit"):
            assert fact in words
        assert part.locator("table").count() >= 1
    assert page.locator("td.number").count() > 500
    assert "0x" not in page.inner_text("article")


# ----- accessibility -----


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    ("name", "within"),
    [
        ("index.html", ()),
        (f"{FIRST.stem}.html", ()),
        ("recorded.html", ("#slots", "#h100-serving")),  # its parts are alike, and long
        ("search.html", ()),
    ],
)
def test_axe_finds_nothing_serious_on_a_page(visit, name: str, within: tuple[str, ...], scheme: str) -> None:
    page = visit(name, color_scheme=scheme)
    for place in page.locator("[data-ride]").all():
        place.scroll_into_view_if_needed()
        place.locator(".elevator").wait_for()
    assert violations(page, *within) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious_in_a_widget(browser, tmp_path, scheme: str) -> None:
    from test_viz_memory import crowded, film

    widgets: dict[str, Elevator | MemoryFilm] = {"ride": Elevator(crowded(), "A ride"), "film": film()}
    for name, widget in widgets.items():
        context = browser.new_context(offline=True, color_scheme=scheme)
        page = context.new_page()
        page.goto(widget.to_html(tmp_path / f"{name}.html").as_uri())
        page.wait_for_selector(".elevator[data-theme]")
        page.wait_for_timeout(300)
        assert violations(page) == [], name
        context.close()


# ----- bad input -----


def test_what_cannot_be_built_is_said(tmp_path, capsys) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(CourseError, match="holds something else"):
        site.build(tmp_path, NOTEBOOKS)
    assert (tmp_path / "mine.txt").read_text() == "precious"
    with pytest.raises(CourseError, match="no notebooks to show"):
        site.build(tmp_path / "new", [])
    assert site.main([str(FIRST), "--out", str(tmp_path)]) == 2
    assert "site: " in capsys.readouterr().err
