"""The live elevator without a browser: what Python sends, what it hears, how it rides."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import random
import threading
from pathlib import Path
from typing import Any

import pytest
from canned_engine import CannedEngine
from jupyter_client.manager import start_new_kernel

from lessonlib.errors import CourseError
from lessonlib.simulation.rehearsal import Answer, Output, Rehearsal
from lessonlib.viz import LiveElevator
from lessonlib.viz.live import OPEN, rider_changes


class Screen:
    """A browser's copy of what is sent, kept as live.js keeps it."""

    def __init__(self, live: LiveElevator) -> None:
        self.live = live
        self.messages: list[dict[str, Any]] = []
        self.tables: dict[str, list[list[int]]] = {}
        self.riders: dict[str, dict[str, Any]] = {}
        self.threads: set[int] = set()
        live.send = self.take  # type: ignore[method-assign]
        self.ask("watch")

    def ask(self, do: str, **what: Any) -> None:
        self.live._hear(self.live, {"do": do, "call": len(self.messages), **what}, [])

    def take(self, message: dict[str, Any], buffers: Any = None) -> None:
        message = json.loads(json.dumps(message))
        self.messages.append(message)
        self.threads.add(threading.get_ident())
        if message["fresh"]:
            self.tables, self.riders = {}, {}
        for name, news in message["tables"].items():
            held = self.tables.setdefault(name, [])
            held += [[]] * (news["rows"] - len(held))
            for place, *values in news["changed"]:
                held[place] = values
            del held[news["rows"] :]
        for news in message["riders"]:
            before = self.riders.get(news["id"], {"text": ""})
            text = before["text"][: news["keep"]] + news["more"]
            self.riders[news["id"]] = {**before, **news, "text": text, "keep": 0, "more": ""}

    @property
    def last(self) -> dict[str, Any]:
        return self.messages[-1]


def crowd(**kwargs: int) -> tuple[CannedEngine, LiveElevator, Screen]:
    engine = CannedEngine(**kwargs)
    live = LiveElevator(engine, ["one two three", "four five", "six"], speed=0.0)
    return engine, live, Screen(live)


# ----- what is sent -----


@pytest.mark.parametrize(
    "kwargs", [{}, {"num_blocks": 9, "block_size": 3, "token_budget": 6}], ids=["plain", "memory"]
)
def test_the_rows_sent_bit_by_bit_are_the_rows_sent_at_once(kwargs: dict[str, int]) -> None:
    _, live, screen = crowd(slots=3, **kwargs)
    late = Screen.__new__(Screen)
    dice = random.Random(4)
    for _ in range(60):
        if dice.random() < 0.3:
            live.board("a word " * dice.randint(1, 3), params=dice.randint(1, 12))
        here = [rider for rider in live._riders.values() if not rider.is_done]
        if here and dice.random() < 0.1:
            live.abort(dice.choice(here).id)
        live._told_at = 0.0
        live.step()
        Screen.__init__(late, live)  # takes over: it has asked for everything
        assert late.tables == screen.tables
        assert late.riders == screen.riders
        assert [rider["text"] for rider in screen.riders.values()] == list(live.texts.values())
        live.send = screen.take  # type: ignore[method-assign]
    assert any(row[4] for row in screen.tables["stays"]), "someone came home or was put off"
    if kwargs:
        assert any(rider.state == "home" for rider in live._riders.values())
        assert 2 in live.engine.trace.events["kind"], "someone was preempted"


def test_a_message_stays_small_however_long_the_ride() -> None:
    _, live, screen = crowd(slots=2)
    sizes = []
    for _ in range(300):
        if len([rider for rider in live._riders.values() if not rider.is_done]) < 4:
            live.board("again", params=5)
        before = len(screen.messages)
        live._told_at = 0.0
        live.step()
        sizes.append(sum(len(json.dumps(message)) for message in screen.messages[before:]))
    assert max(sizes) < 1500
    assert max(sizes[200:]) < 1.3 * max(sizes[20:100])


def test_a_new_prompt_waits_in_the_lobby_at_once_and_boards_at_the_next_step() -> None:
    _, live, screen = crowd(slots=4)
    live.step()
    screen.ask("board", prompt="and me")
    assert screen.riders["rider 4"]["state"] == "waiting"
    assert screen.tables["waits"][-1] == [3, 1, OPEN, 0]
    screen.ask("step")
    assert screen.riders["rider 4"]["state"] == "riding"
    assert screen.riders["rider 4"]["text"] == "the"
    assert screen.tables["stays"][-1][:3] == [3, 3, 1]


def test_nothing_is_sent_before_a_browser_asks() -> None:
    live = LiveElevator(CannedEngine(), ["one"])
    sent: list[Any] = []
    live.send = sent.append  # type: ignore[method-assign,assignment]
    live.ride()
    assert sent == []


def test_fast_steps_share_a_message() -> None:
    _, live, screen = crowd()
    before = len(screen.messages)
    live.ride()
    assert live.engine.trace.num_steps > 5 > len(screen.messages) - before
    assert {rider["state"] for rider in screen.riders.values()} == {"home"}


def test_words_that_are_taken_back_are_taken_back() -> None:
    _, live, _ = crowd()
    before, after = (live._riders["rider 1"], live._riders["rider 1"].__class__("rider 1", "x", "naïve 🛗!"))
    before.text = "naïve �"
    assert rider_changes(before, after)["keep"] == 6
    assert rider_changes(before, after)["more"] == "🛗!"


# ----- what is heard -----


def test_abort_frees_the_slot_for_the_next_step() -> None:
    _, live, screen = crowd(slots=2)
    live.step()
    screen.ask("abort", rider="rider 1")
    assert screen.riders["rider 1"]["state"] == "aborted"
    screen.ask("step")
    assert screen.riders["rider 3"]["state"] == "riding"
    assert screen.tables["stays"][-1][:3] == [0, 2, 1], "its slot"
    said = live.texts["rider 1"]
    live.ride()
    assert live.texts["rider 1"] == said
    screen.ask("abort", rider="rider 1")
    assert screen.last["answer"]["refused"]
    assert screen.last["note"].startswith("no rider 'rider 1' to abort")


@pytest.mark.parametrize(
    ("prompt", "note"),
    [("", "the prompt is empty"), ("  \n", "the prompt is empty"), ("x" * 401, "at most 400")],
)
def test_a_prompt_that_is_refused_is_told_why_and_the_next_one_boards(prompt: str, note: str) -> None:
    _, live, screen = crowd()
    screen.ask("board", prompt=prompt)
    assert note in screen.last["note"]
    assert screen.last["answer"]["refused"]
    assert len(live.texts) == 3
    screen.ask("board", prompt="better")
    assert screen.last["note"] == ""
    assert not screen.last["answer"]["refused"]
    with pytest.raises(CourseError):
        live.board(prompt)


def test_a_request_that_the_scheduler_rejects_does_not_shift_the_others() -> None:
    screen = crowd(slots=2, num_blocks=5, block_size=2)[2]
    screen.ask("board", prompt="too long " * 20)
    assert "rejected" in screen.last["note"]
    screen.ask("board", prompt="fits")
    rejected = 3
    assert screen.riders["rider 4"]["row"] == rejected + 1


def test_an_engine_that_raises_is_shown_and_stays_usable() -> None:
    engine, live, screen = crowd()
    engine.broken = RuntimeError("out of memory\nand a long story")
    screen.ask("step")
    assert screen.last["note"] == "RuntimeError: out of memory"
    screen.ask("step")
    assert screen.last["note"] == ""
    assert live.texts["rider 1"] == "the"
    engine.broken = CourseError("no blocks left")
    with pytest.raises(CourseError, match="no blocks"):
        live.ride()


def test_nothing_to_do_says_so() -> None:
    live = LiveElevator(CannedEngine())
    screen = Screen(live)
    screen.ask("step")
    assert screen.last["note"].startswith("Nobody is on board or waiting")
    screen.ask("run")
    assert "no event loop" in screen.last["note"]
    live.ride()
    screen.ask("dance")
    assert live.engine.trace.num_steps == 0


def test_who_boarded_elsewhere_is_read_but_nobody_is_pointed_out_wrongly() -> None:
    engine, live, screen = crowd(slots=4)
    engine.add_request("stranger", "hello")
    live.step()
    assert live.texts["stranger"] == "the"
    live.board("late")
    live.ride()
    assert {rider["row"] for rider in screen.riders.values()} == {-1}
    assert {rider["state"] for rider in screen.riders.values()} == {"home"}


def test_an_engine_that_has_ridden_before_goes_on_with_new_riders() -> None:
    engine, first, _ = crowd()
    first.ride()
    live = LiveElevator(engine, [])
    screen = Screen(live)
    live.board("anew", request_id="again")
    live.ride()
    assert screen.riders["again"]["row"] == 3


def test_ids_are_used_once() -> None:
    live = LiveElevator(CannedEngine(), ["one"])
    live.board("x", request_id="rider 2")
    assert live.board("y") == "rider 3"
    with pytest.raises(CourseError, match="boarded before"):
        live.board("z", request_id="rider 2")


# ----- how it rides -----


def test_it_rides_between_messages_and_waits_for_riders() -> None:
    async def notebook() -> None:
        engine, live, screen = crowd(slots=4)
        live.speed = 200.0
        await asyncio.sleep(0)  # the first message is heard in the loop
        screen.ask("run")
        while engine.trace.num_steps < 2:
            await asyncio.sleep(0)
        screen.ask("board", prompt="and me")
        await asyncio.sleep(0)
        step = engine.trace.num_steps
        while live._task and not live._task.done():
            await asyncio.sleep(0.001)
        assert engine.trace.events["step"][engine.trace.events["request"] == 3][1] == step, "the next step"
        assert live.running
        screen.ask("board", prompt="one more")
        await asyncio.sleep(0.1)
        assert live.texts["rider 5"] == "the car goes up and the"
        screen.ask("pause")
        screen.ask("board", prompt="and now?")
        await asyncio.sleep(0.02)
        assert live.texts["rider 6"] == ""
        assert not screen.last["running"]

    asyncio.run(notebook())


def test_an_error_while_it_rides_stops_it_and_is_shown() -> None:
    async def notebook() -> None:
        engine, live, screen = crowd()
        engine.broken = ZeroDivisionError("division by zero")
        screen.ask("run")
        await asyncio.sleep(0.01)
        assert screen.last["note"] == "ZeroDivisionError: division by zero"
        assert not screen.last["running"]
        screen.ask("run")
        await asyncio.sleep(0.05)
        assert screen.last["note"] == ""
        assert set(live.texts.values()) == {"the car goes up and the"}

    asyncio.run(notebook())


def test_a_message_in_another_thread_is_handled_in_the_engines_own() -> None:
    async def notebook() -> None:
        engine, live, screen = crowd()
        threads = set()
        add, step = engine.add_request, engine.step
        engine.add_request = lambda *a: (threads.add(threading.get_ident()), add(*a))[1]  # type: ignore[method-assign]
        engine.step = lambda: (threads.add(threading.get_ident()), step())[1]  # type: ignore[method-assign]
        for what in ({"do": "run"}, {"do": "board", "prompt": "from afar"}):
            await asyncio.to_thread(live._hear, live, what, [])
        await asyncio.sleep(0.05)
        assert live.texts["rider 4"] == "the car goes up and the"
        assert threads == screen.threads == {threading.get_ident()}

    asyncio.run(notebook())


CELL = """
from canned_engine import CannedEngine
from lessonlib.viz import LiveElevator
import threading
engine, threads = CannedEngine(slots=4), set()
step = engine.step
engine.step = lambda: (threads.add(threading.current_thread()), step())[1]
live = LiveElevator(engine, ["one two"], params=100_000, speed=0.0)
print(live.comm.comm_id)
"""


def test_in_a_real_kernel_a_prompt_gets_in_between_two_steps() -> None:
    """At full speed, by the shell and by a subshell: JupyterLab sends widgets' messages there."""
    here = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(here.parent), str(here)])}
    manager, client = start_new_kernel(env=environment)
    try:
        printed: list[str] = []

        def run(code: str) -> str:
            hook = lambda message: printed.append(message["content"].get("text", ""))  # noqa: E731
            client.execute_interactive(code, timeout=60, output_hook=hook)
            return "".join(printed).split("\n")[-2]

        def ask(do: str, subshell: str | None, **what: Any) -> None:
            data = {"method": "custom", "content": {"do": do, **what}}
            message = client.session.msg("comm_msg", {"comm_id": widget, "data": data})
            message["header"]["subshell_id"] = subshell
            client.shell_channel.send(message)

        def answer(call: str) -> dict[str, Any]:
            while True:
                data = client.get_iopub_msg(timeout=20)["content"].get("data", {})
                if ((data.get("content") or {}).get("answer") or {}).get("call") == call:
                    return data["content"]

        widget = run(CELL)
        client.control_channel.send(client.session.msg("create_subshell_request", {}))
        subshell = client.get_control_msg(timeout=20)["content"]["subshell_id"]
        ask("watch", None, call="watch")
        ask("run", None, call="run")
        steps = [answer("run")["head"]["num_steps"]]
        for place in (None, subshell):
            ask("board", place, call=f"board {place}", prompt="me too")
            steps.append(answer(f"board {place}")["head"]["num_steps"])
        assert steps == sorted(steps)
        ask("pause", subshell, call="pause")
        assert answer("pause")["head"]["num_steps"] > 3
        assert run("print(threads == {threading.main_thread()}, len(live.texts), live.note)") == "True 3 "
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def test_a_ride_without_a_loop_stops_where_it_is_told() -> None:
    engine, live, _ = crowd()
    live.ride(max_steps=3)
    assert engine.trace.num_steps == 3
    with pytest.raises(CourseError, match="call ride"):
        live.run()
    live.ride()
    assert not engine.has_unfinished_requests()


# ----- where nothing moves -----


def test_words_and_picture_are_the_same_every_time() -> None:
    bundles = []
    for _ in range(2):
        _, live, _ = crowd()
        live.ride(max_steps=8)
        bundles.append(live._repr_mimebundle_()[0])
    assert bundles[0]["image/png"] == bundles[1]["image/png"]
    assert base64.b64decode(bundles[0]["image/png"]).startswith(b"\x89PNG")
    assert (
        bundles[0]["text/plain"]
        == bundles[1]["text/plain"]
        == (
            "Live elevator\n"
            "  continuous: 3 requests in 2 slots, 8 steps, 14 tokens, 87.5% utilization\n"
            "  rider 1, home (length): one two three → the car goes up and the\n"
            "  rider 2, home (length): four five → the car goes up and the\n"
            "  rider 3, riding: six → the car"
        )
    )
    assert "application/vnd.jupyter.widget-view+json" in bundles[0]


def test_before_the_first_step_there_are_words_and_no_picture() -> None:
    class Lazy(CannedEngine):
        """Records nothing before its first step."""

        trace = None

    live = LiveElevator(Lazy(), ["one"])  # type: ignore[arg-type]
    data, _ = live._repr_mimebundle_()
    assert data["text/plain"] == "Live elevator\n  no step yet\n  rider 1, waiting: one"
    assert "image/png" not in data
    screen = Screen(live)
    assert screen.last["head"] is None
    assert screen.riders["rider 1"]["row"] == -1
    with pytest.raises(CourseError, match="nothing to draw"):
        live.picture()


def test_many_riders_have_a_short_repr() -> None:
    live = LiveElevator(CannedEngine(), [f"prompt {i}" for i in range(20)])
    assert len(repr(live).splitlines()) == 2 + 12 + 1
    assert repr(live).endswith("… and 8 more")


def test_an_output_after_an_abort_changes_nothing() -> None:
    engine, live, _ = crowd()
    live.abort("rider 1")
    engine.step = lambda: [Output("rider 1", "x", [Answer("late")], finished=True)]  # type: ignore[method-assign]
    live.step()
    assert live.texts["rider 1"] == ""


# ----- settings -----


def building(policy: str = "vllm", slots: int = 3, blocks: int = 20) -> Rehearsal:
    return Rehearsal(policy, slots, blocks, block_size=4)


SETTINGS = {"policy": ["vllm", "static", "orca"], "slots": (1, 8), "blocks": (6, 60)}


def test_a_new_setting_builds_anew_and_everyone_boards_again() -> None:
    live = LiveElevator(building, ["one two", "three", "four five"], params=5, settings=SETTINGS)
    screen = Screen(live)
    assert screen.last["settings"]["slots"] == {"value": 3, "least": 1, "most": 8}
    assert screen.last["settings"]["policy"]["choices"] == ["vllm", "static", "orca"]
    live.ride(max_steps=3)
    live.board("late")
    live.abort("rider 2")
    before = live.engine
    screen.ask("set", name="slots", value="2")
    assert live.engine is not before
    assert live.values == {"policy": "vllm", "slots": 2, "blocks": 20}
    assert screen.last["head"]["slots"] == 2
    assert screen.last["head"]["num_steps"] == 0
    assert {rider["id"]: rider["state"] for rider in screen.riders.values()} == {
        "rider 1": "waiting",
        "rider 2": "aborted",
        "rider 3": "waiting",
        "rider 4": "waiting",
    }
    assert {rider["id"]: rider["row"] for rider in screen.riders.values()} == {
        "rider 1": 0,
        "rider 2": -1,
        "rider 3": 1,
        "rider 4": 2,
    }
    live.ride()
    assert live.texts == {
        "rider 1": "1 2 3 4 5",
        "rider 2": "1 2 3",
        "rider 3": "1 2 3 4 5",
        "rider 4": "1 2 3 4 5",
    }
    assert live.engine.trace.header.policy == "vllm"
    live.set("policy", "orca")
    assert live.engine.trace.header.policy == "orca"
    assert not live.engine.has_unfinished_requests()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("slots", "9", "slots '9': give a whole number from 1 to 8"),
        ("slots", "many", "slots 'many': give a whole number"),
        ("policy", "orcas", "policy 'orcas': choose one of vllm, static, orca"),
        ("floors", "3", "no setting 'floors': there are policy, slots, blocks"),
    ],
)
def test_a_setting_that_is_not_offered_is_refused_and_the_ride_goes_on(
    name: str, value: str, message: str
) -> None:
    live = LiveElevator(building, ["one"], params=2, settings=SETTINGS)
    screen = Screen(live)
    before = live.engine
    screen.ask("set", name=name, value=value)
    assert message in screen.last["note"]
    assert screen.last["answer"]["refused"] is True
    assert live.engine is before
    live.ride()
    assert live.texts == {"rider 1": "1 2"}


def test_what_the_new_engine_refuses_is_said_and_whoever_it_refuses_is_off() -> None:
    live = LiveElevator(building, ["a " * 30, "short"], params=20, settings={"blocks": (1, 60)})
    with pytest.raises(CourseError):
        live.set("blocks", 1)
    assert live.values == {"blocks": 20}
    live.set("blocks", 9)
    states = {rider.id: rider.state for rider in live._riders.values()}
    assert states == {"rider 1": "aborted", "rider 2": "waiting"}
    assert "it needs" in live._riders["rider 1"].reason
    live.ride()
    assert live.texts["rider 2"].endswith("20")


@pytest.mark.parametrize(
    ("engine", "settings", "message"),
    [
        (building, {"slots": 3}, "slots=3 is no setting"),
        (building, {"slots": (4, 8)}, "slots 3: give a whole number from 4 to 8"),
        (lambda slots: None, {"slots": (1, 8)}, "'slots' has no default"),
        (CannedEngine(), {"slots": (1, 8)}, "need a function that makes an engine"),
    ],
)
def test_settings_that_make_no_sense(engine, settings, message: str) -> None:
    with pytest.raises(CourseError, match=message):
        LiveElevator(engine, settings=settings)
