"""The live elevator in a real Chromium. Playwright's event loop stands in for the kernel's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from accessibility import violations
from canned_engine import CannedEngine
from test_viz_browser import keep

from lessonlib.simulation.rehearsal import Rehearsal
from lessonlib.viz import LiveElevator
from lessonlib.viz.widget import STYLE, script

pytestmark = pytest.mark.browser

CSS = STYLE.read_text()

# What a notebook's front end gives a widget: a model whose messages go to Python and come from there.
HOST = """
// JupyterLab submits no form on Enter.
document.addEventListener("submit", (event) => event.stopImmediatePropagation(), true);
const handlers = {};
const state = %(state)s;
window.sent = [];
const model = {
  get: (name) => state[name],
  set: (name, value) => { state[name] = value; },
  save_changes: () => {},
  on: (name, handler) => { (handlers[name] ||= new Set()).add(handler); },
  off: (name, handler) => { handlers[name]?.delete(handler); },
  send: (content) => { window.sent.push(content); if (!window.deaf) toPython(content); },
};
window.deliver = (messages) => {
  for (const message of messages) for (const handler of handlers["msg:custom"] || []) handler(message);
};
setInterval(async () => { if (!window.deaf) window.deliver(await fromPython()); }, 15);
const source = document.getElementById("source").textContent;
const module = await import(URL.createObjectURL(new Blob([source], { type: "text/javascript" })));
window.view = (el) => module.default.render({ model, el });
window.leave = window.view(document.getElementById("elevator"));
"""

COUNT_FRAMES = """() => {
  const real = window.requestAnimationFrame.bind(window);
  window.framesAsked = 0;
  window.requestAnimationFrame = (call) => { window.framesAsked += 1; return real(call); };
}"""

PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Live</title>
<style>:root {{ color-scheme: light dark; }} body {{ margin: 8px; background: light-dark(#fff, #111418); }}
{css}</style>
<main id="elevator"></main>
<script type="text/plain" id="source">{source}</script>
<script type="module">{host}</script>
"""


class LivePage:
    """A live elevator on a page, and what a reader does with it."""

    def __init__(
        self, browser: Any, path: Path, widget: LiveElevator, width: int = 616, **context: Any
    ) -> None:
        self.live = widget
        self.inbox: list[Any] = []
        widget.send = lambda message, buffers=None: self.inbox.append(json.loads(json.dumps(message)))  # type: ignore
        state = {"title": widget.title, "speed": widget.speed}
        path.write_text(PAGE.format(css=CSS, source=script("live"), host=HOST % {"state": json.dumps(state)}))
        self.context = browser.new_context(viewport={"width": width, "height": 1100}, offline=True, **context)
        self.page = self.context.new_page()
        self.errors: list[str] = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda message: message.type == "error" and self.errors.append(message.text))
        self.page.expose_function("toPython", lambda content: widget._hear(widget, content, []))
        self.page.expose_function("fromPython", self.drain)
        self.page.goto(path.as_uri())
        self.page.wait_for_selector(".elevator[data-theme]")
        self.page.wait_for_function(
            "window.sent.length && document.querySelector('.elevator-place').textContent"
        )

    def drain(self) -> list[Any]:
        messages, self.inbox = self.inbox, []
        return messages

    def click(self, name: str) -> None:
        self.page.get_by_role("button", name=name, exact=True).click()

    def type(self, prompt: str) -> None:
        self.page.get_by_role("textbox").fill(prompt)
        self.page.keyboard.press("Enter")

    def line(self, name: str) -> str:
        """What a rider's line says; waits a moment for it."""
        return self.rider(name).inner_text()

    def rider(self, name: str) -> Any:
        return self.page.locator(".elevator-rider").filter(has=self.page.get_by_text(name, exact=True))

    def wait_for(self, name: str, words: str) -> None:
        self.rider(name).filter(has_text=words).wait_for(timeout=20_000)

    def place(self, words: str) -> None:
        self.page.wait_for_function(
            "(words) => document.querySelector('.elevator-place').textContent === words",
            arg=words,
            timeout=5000,
        )

    def says(self, words: str) -> None:
        self.page.locator(".elevator-caption").filter(has_text=words).wait_for(timeout=20_000)

    def notes(self, words: str) -> None:
        self.page.locator(".elevator-note").filter(has_text=words).wait_for(timeout=20_000)


@pytest.fixture
def ride(browser, tmp_path) -> Iterator:
    """`ride(widget)` opens a page; at the end none may have had an error."""
    pages: list[LivePage] = []

    def open_page(widget: LiveElevator, **kwargs: Any) -> LivePage:
        pages.append(LivePage(browser, tmp_path / f"live{len(pages)}.html", widget, **kwargs))
        return pages[-1]

    yield open_page
    for page in pages:
        page.context.close()
        assert page.errors == []


def crowded(speed: float = 0.0, **kwargs: Any) -> LiveElevator:
    engine = CannedEngine(slots=4, num_blocks=25, block_size=4, token_budget=12)
    prompts = ["What is the capital of France, and why?", "Write a haiku about rain.", "Who is <b>bold</b>?"]
    return LiveElevator(engine, prompts, "Four slots, and you", params=30, speed=speed, **kwargs)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_prompt_boards_at_the_next_step_and_is_read_word_by_word(ride, scheme: str) -> None:
    page = ride(crowded(), color_scheme=scheme)
    assert page.page.get_attribute(".elevator", "data-theme") == scheme
    page.place("no step yet")
    for step in range(6):
        page.click("One step")
        page.place(f"step {step}")
    assert "slot 0, writes" in page.line("rider 1")
    page.type("Please <i>take</i> me too & them")
    page.wait_for("rider 4", "waits in the lobby")
    assert page.page.input_value("input[type=text]") == ""
    page.says("3 of 4 on board, 1 waiting")
    keep(page, f"live-waiting-{scheme}")
    page.click("One step")
    page.wait_for("rider 4", "slot 3, reads its prompt")
    page.says("rider 4 boards")
    page.live.ride(max_steps=14)
    page.place("step 20")
    page.wait_for("rider 4", "the doors let one more in <b>now</b> 🛗")
    assert "Please <i>take</i> me too & them" in page.line("rider 4")
    assert page.page.locator(".elevator-riders i, .elevator-words b, .elevator-prompt b").count() == 0
    assert page.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    keep(page, f"live-riding-{scheme}")


def test_it_runs_while_riders_come_and_go(ride) -> None:
    page = ride(crowded(speed=10.0))  # slow enough that a busy machine sees rider 4 on board
    page.click("Run")
    page.wait_for("rider 1", "doors let")
    page.type("and me")
    page.wait_for("rider 4", "slot 3")
    page.click("Abort rider 2")
    page.wait_for("rider 2", "aborted")
    page.wait_for("rider 4", "home (length)")
    page.place(f"after {page.live.engine.trace.num_steps} steps")
    page.says("0 of 4 on board, 0 waiting")
    assert page.page.get_by_role("button", name="Pause", exact=True).is_visible()
    assert page.page.get_by_role("button", name="Abort rider 4").is_hidden()
    page.type("it still runs")
    page.wait_for("rider 5", "home (length)")
    page.click("Pause")
    page.page.get_by_role("button", name="Run", exact=True).wait_for()
    keep(page, "live-home")


def test_keys_do_all_of_it(ride) -> None:
    page = ride(crowded())
    names = []
    for _ in range(8):
        page.page.keyboard.press("Tab")
        names.append(
            page.page.evaluate("document.activeElement.ariaLabel || document.activeElement.textContent")
        )
    assert names[0].startswith("Four slots, and you. Arrow keys look back")
    assert names[1:] == [
        "A prompt for a new rider",
        "Board",
        "Run",
        "One step",
        "Back to the newest step",
        "Speed",
        "Riders, the last to come first",
    ]
    page.page.get_by_role("textbox").focus()
    page.page.keyboard.type("two words")
    page.page.keyboard.press("Home")
    page.page.keyboard.type("my ")
    page.page.keyboard.press("Enter")
    page.wait_for("rider 4", "my two words")
    page.page.get_by_role("button", name="One step").focus()
    for _ in range(3):
        page.page.keyboard.press("Enter")
    page.place("step 2")
    page.page.focus(".elevator")
    page.page.keyboard.press("ArrowLeft")
    page.place("step 1, looking back")
    page.click("One step")
    page.wait_for("rider 1", "the car goes")
    page.place("step 1, looking back")
    page.page.focus(".elevator")
    page.page.keyboard.press("End")
    page.place("step 3")
    page.page.get_by_role("button", name="Abort rider 4").focus()
    page.page.keyboard.press("Enter")
    page.wait_for("rider 4", "aborted")
    assert page.page.evaluate("document.activeElement.type") == "text", "the button went, the focus did not"
    page.page.focus(".elevator")
    page.page.keyboard.press("Space")
    page.page.get_by_role("button", name="Pause", exact=True).wait_for()


def test_what_goes_wrong_is_said_and_the_next_thing_works(ride) -> None:
    page = ride(LiveElevator(CannedEngine(slots=2), title="Nobody yet"))
    page.click("One step")
    page.notes("Nobody is on board or waiting")
    page.type("   ")
    page.notes("the prompt is empty")
    page.type("x" * 401)
    page.notes("at most 400 fit")
    assert page.page.input_value("input[type=text]") == "x" * 401, "what was typed is not lost"
    keep(page, "live-note")
    page.type("short")
    page.wait_for("rider 1", "waits in the lobby")
    assert page.page.inner_text(".elevator-note") == ""
    page.live.engine.broken = RuntimeError("out of memory")
    page.click("Run")
    page.notes("RuntimeError: out of memory")
    page.click("Run")
    page.wait_for("rider 1", "home (length)")


def test_a_kernel_that_does_not_answer_is_noticed_and_caught_up_with(ride) -> None:
    page = ride(crowded())
    page.page.evaluate("window.deaf = true")
    page.click("One step")
    page.notes("The kernel does not answer")
    page.live.ride(max_steps=3)
    page.inbox = page.inbox[2:]  # lost on the way
    page.page.evaluate("window.deaf = false")
    page.live.board("late")
    page.wait_for("rider 4", "waits in the lobby")
    page.place("step 2")
    assert page.page.inner_text(".elevator-note") == ""


def test_a_second_view_and_a_closed_one(ride) -> None:
    page = ride(crowded())
    page.click("One step")
    page.place("step 0")
    page.page.evaluate("() => { window.view(document.body.appendChild(document.createElement('div'))); }")
    page.page.wait_for_function("document.querySelectorAll('.elevator-rider').length === 6")
    page.page.evaluate("window.leave(); document.getElementById('elevator').remove()")
    page.click("One step")
    page.place("step 1")
    page.wait_for("rider 1", "writes")


def test_less_motion_means_no_frames_between_steps(ride) -> None:
    page = ride(crowded(), reduced_motion="reduce")
    page.page.evaluate(COUNT_FRAMES)
    for step in range(4):
        page.click("One step")
        page.place(f"step {step}")
    assert page.page.evaluate("window.framesAsked") == 0


def test_a_long_ride_stays_fluid(ride, record_property) -> None:
    """Thousands of steps in one go, then news of single ones."""
    widget = LiveElevator(CannedEngine(slots=8), title="Long", params=40, speed=0.0)
    for number in range(200):
        widget.board(f"prompt {number}")
    widget.ride(max_steps=900)
    page = ride(widget)
    page.place("step 899")
    page.page.evaluate("""() => {
      window.spent = [];
      const deliver = window.deliver;
      window.deliver = (messages) => {
        const start = performance.now();
        deliver(messages);
        if (messages.length) window.spent.push(performance.now() - start);
      };
    }""")
    for step in range(900, 905):
        page.click("One step")
        page.place(f"step {step}")
    spent = sorted(page.page.evaluate("window.spent"))
    record_property("message_ms", round(spent[len(spent) // 2], 1))
    print(f"\nmedian {spent[len(spent) // 2]:.1f} ms, most {spent[-1]:.1f} ms a message")
    assert spent[len(spent) // 2] < 100
    keep(page, "live-long")


def test_pointing_shows_who_is_who(ride) -> None:
    page = ride(crowded())
    for step in range(3):
        page.click("One step")
        page.place(f"step {step}")
    page.page.wait_for_timeout(300)
    picture = "document.querySelector('.elevator canvas').toDataURL()"
    at_rest = page.page.evaluate(picture)
    page.rider("rider 2").hover()
    assert page.page.evaluate(picture) != at_rest
    box = page.page.locator(".elevator canvas").first.bounding_box()
    said = set()
    for y in range(int(box["y"]) + 40, int(box["y"] + box["height"]) - 60, 10):
        for x in (0.46, 0.5, 0.54):
            page.page.mouse.move(box["x"] + box["width"] * x, y)
            if page.page.locator(".elevator-tip").is_visible():
                said.add(page.page.inner_text(".elevator-tip"))
    assert any(text.startswith("rider 2: ") and "haiku" in text for text in said), said


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_reader_changes_policy_slots_and_blocks(ride, scheme: str) -> None:
    page = ride(buildable(), color_scheme=scheme)
    page.click("One step")
    page.place("step 0")
    page.page.get_by_role("spinbutton", name="slots").fill("2")
    page.page.get_by_role("spinbutton", name="slots").press("Enter")
    page.place("no step yet")
    page.says("0 of 2 on board, 4 waiting")
    page.page.get_by_label("policy").select_option("static")
    page.click("One step")
    page.place("step 0")
    page.says("2 of 2 on board, 2 waiting")
    page.page.get_by_role("spinbutton", name="blocks").fill("999")
    page.page.get_by_role("spinbutton", name="blocks").press("Enter")
    page.notes("give a whole number from 6 to 60")
    page.page.get_by_role("spinbutton", name="blocks").blur()
    page.click("One step")
    page.page.wait_for_function("document.querySelector('input[type=number][max=\"60\"]').value === '20'")
    keep(page, f"live-settings-{scheme}")


def buildable() -> LiveElevator:
    def building(policy: str = "vllm", slots: int = 3, blocks: int = 20) -> Rehearsal:
        return Rehearsal(policy, slots, blocks, block_size=4)

    settings = {"policy": ["vllm", "static"], "slots": (1, 8), "blocks": (6, 60)}
    prompts = ["one two", "three", "four five", "six"]
    return LiveElevator(building, prompts, "Change the building", params=8, settings=settings, speed=0.0)


ANSWERS = """async () => {
  const wait = (done) => new Promise((end) => {
    const look = () => (done() ? end() : setTimeout(look, 1));
    look();
  });
  const input = document.querySelector("input[type=number]");
  const times = [];
  for (const slots of ["2", "5", "3", "7"]) {
    const before = performance.now();
    input.value = slots;
    input.dispatchEvent(new Event("change"));
    await wait(() => window.heard?.head?.slots === Number(slots));
    await new Promise((end) => requestAnimationFrame(() => setTimeout(end)));
    times.push(performance.now() - before);
  }
  return times;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious_while_it_rides(ride, scheme: str) -> None:
    page = ride(buildable(), color_scheme=scheme)
    for step in range(4):
        page.click("One step")
        page.place(f"step {step}")
    page.page.get_by_role("spinbutton", name="blocks").fill("999")
    page.page.get_by_role("spinbutton", name="blocks").press("Enter")
    page.notes("give a whole number from 6 to 60")
    assert violations(page.page) == []


def answer_times(page: LivePage) -> list[float]:
    """Milliseconds from a change in the page to the picture that answers it, in order."""
    page.page.evaluate("""() => {
      const deliver = window.deliver;
      window.deliver = (messages) => { deliver(messages); window.heard = messages.at(-1) ?? window.heard; };
    }""")
    return sorted(page.page.evaluate(ANSWERS))


def test_the_picture_answers_at_once(ride, record_property) -> None:
    """From a change in the page to the new picture of a rehearsal; a busy machine is quick once at least."""
    times = answer_times(ride(buildable()))
    record_property("answer_ms", round(times[len(times) // 2], 1))
    print(f"\nanswers after {[round(time) for time in times]} ms")
    assert times[0] < 400


@pytest.mark.prove
def test_the_picture_answers_within_a_tenth_of_a_second(ride) -> None:
    times = answer_times(ride(buildable()))
    assert times[len(times) // 2] < 100
