"""What decides between policies: the numbers against recounts, and the pictures that show them."""

import base64
import itertools

import numpy as np
import pytest

from lessonlib.errors import CourseError
from lessonlib.scheduling.policies import FairShares, ShortestJobFirst
from lessonlib.simulation import CostModel, decide, predicted_lengths, simulate
from lessonlib.simulation.decide import Level
from lessonlib.viz import decide as viz
from lessonlib.workload import Workload, poisson_arrivals

COST = CostModel(0.001, 0.004, 0.00001, 0.0000005)
HOUSE = {"num_blocks": 60, "block_size": 4, "token_budget": 64, "cost_model": COST}
TWO = {"static": "static", "vLLM V1": "vllm"}


def crowd(count=40, rate=None):
    rng = np.random.default_rng(0)
    arrivals = poisson_arrivals(count, rate) if rate else np.zeros(count)
    return Workload.from_lengths(rng.integers(1, 40, count), rng.integers(1, 30, count), arrivals, "seconds")


# ----- numbers -----


def test_the_plane_is_speed_for_one_against_speed_for_all():
    points = decide.pareto(crowd(), TWO, [1, 4, 8], **HOUSE)
    trace = simulate(crowd(), "vllm", 4, max_tokens=39, **HOUSE)
    found = points["vLLM V1"][1]
    assert found.slots == 4
    assert found.per_card == pytest.approx(trace.tokens / trace.span)
    gaps = [np.diff(times) for times in trace.token_times() if len(times) > 1]
    assert found.per_user == pytest.approx(np.median([1 / each.mean() for each in gaps]))
    users, cards, _ = zip(*points["vLLM V1"], strict=True)
    assert users[0] > users[1]
    assert cards[0] < cards[1]


def test_a_promise_is_kept_by_both_times():
    trace = simulate(crowd(30, 40.0), "vllm", 4, **HOUSE)
    times = trace.token_times()
    for level in (Level(0.05, 0.006), Level(0.2, 0.01), Level(9.0, 9.0)):
        found = decide.kept(trace, level)
        for row, tokens in enumerate(times):
            first = tokens[0] - trace.requests["arrival_time"][row]
            per_token = (tokens[-1] - tokens[0]) / max(1, len(tokens) - 1)
            assert found[row] == (first <= level.ttft and per_token <= level.tpot), row
    assert decide.kept(trace, Level(9.0, 9.0)).all()
    assert not decide.kept(trace, Level(0.0, 9.0)).any()


def test_who_is_rejected_was_not_served():
    workload = Workload.from_lengths([3, 300], [2, 2], [0.0, 0.0], "seconds")
    trace = simulate(workload, "vllm", 2, 9, 4, cost_model=COST)
    assert decide.kept(trace, Level(9.0, 9.0)).tolist() == [True, False]


def test_goodput_falls_as_more_come_and_the_knee_is_the_last_that_is_good():
    rates = [5.0, 20.0, 80.0, 320.0]
    shares = decide.goodput(
        lambda rate: crowd(40, rate), TWO, rates, [Level(0.05, 0.02), Level(5.0, 5.0)], slots=4, **HOUSE
    )
    tight, loose = shares["vLLM V1"]
    assert tight[0] > tight[-1]
    assert loose == [1.0] * 4
    trace = simulate(crowd(40, 20.0), "vllm", 4, max_tokens=39, **HOUSE)
    assert tight[1] == decide.kept(trace, Level(0.05, 0.02)).mean()
    assert shares["static"][0][1] < tight[1]
    assert decide.knee(rates, [1.0, 0.95, 0.9, 0.5]) == 80.0
    assert decide.knee(rates, [1.0, 0.5, 0.95, 0.95]) == 5.0
    assert decide.knee(rates, [0.8, 1.0, 1.0, 1.0]) == 0.0


def test_shortest_first_is_quick_for_the_short():
    def told(workload):
        return ShortestJobFirst(predicted=predicted_lengths(workload, 0.0))

    waits = decide.waits_by_length(crowd(), {"vLLM V1": "vllm", "shortest": told}, slots=4, **HOUSE)
    assert np.median(waits["shortest"]["short"]) < np.median(waits["vLLM V1"]["short"])
    assert [len(each) for each in waits["shortest"].values()] == [13, 13]
    with pytest.raises(CourseError, match=r"a share of 0\.7"):
        decide.waits_by_length(crowd(), TWO, 0.7, slots=4, **HOUSE)


def users_ride(policy):
    users = ["a hundred"] * 30 + ["five"] * 5
    return users, simulate(crowd(35), policy, 4, salts=users, **HOUSE)


def test_fair_shares_are_seen_in_the_waits_and_in_the_tokens():
    users = ["a hundred"] * 30 + ["five"] * 5
    policies = {"vLLM V1": "vllm", "fair shares": lambda workload: FairShares()}
    waits = decide.waits_by_user(crowd(35), users, policies, slots=4, **HOUSE)
    assert np.median(waits["fair shares"]["five"]) < 0.5 * np.median(waits["vLLM V1"]["five"])
    _, trace = users_ride("vllm")
    times, served = decide.served_over_time(trace, users)
    assert times[-1] == pytest.approx(trace.span)
    assert sum(tokens[-1] for tokens in served.values()) == trace.tokens
    given = [time for row in range(30, 35) for time in trace.token_times()[row]]
    assert served["five"].tolist() == [sum(time <= now for time in given) for now in times]


# ----- pictures -----


def predicted_row(name):
    measured = {"tokens_per_second": 40.0, "ttft_p50": 2.0, "itl_p99": 0.1}
    predicted = {"tokens_per_second": 44.0, "ttft_p50": 1.0, "itl_p99": 0.1}
    error = {key: predicted[key] / measured[key] - 1 for key in measured}
    return {"policy": name, "measured": measured, "predicted": predicted, "error": error}


def drawn():
    curves = {
        "static": [(90.0, 200.0, 4), (80.0, 300.0, 8)],
        "vLLM V1": [(80.0, 400.0, 4), (60.0, 900.0, 8), (60.1, 901.0, 16)],
    }
    shares = {"static": [[1.0, 0.4], [1.0, 1.0]], "vLLM V1": [[1.0, 0.95], [1.0, 1.0]]}
    levels = [Level(1.0, 0.05).words, Level(10.0, 0.2).words]
    groups = {
        "vLLM V1": {"short": [1.0, 2.0], "long": [3.0, 4.0]},
        "shortest": {"short": [0.05, 0.1], "long": [5.0, 9.0]},
    }
    panels = {"vLLM V1": ([0.0, 1.0, 2.0], {"a hundred": [0, 50, 90], "five": [0, 0, 5]})}
    return {
        "plane": viz.pareto_plane(curves, "A finding", floor=30),
        "chosen": viz.pareto_plane(curves, "A finding", highlight="static"),
        "goodput": viz.goodput_chart(
            [2.0, 4.0], shares, levels, {"static": [2.0, 4.0], "vLLM V1": [4.0, 0.0]}, "A finding"
        ),
        "groups": viz.two_groups(groups, "A finding"),
        "even groups": viz.two_groups({"a": {"x": [1.0], "y": [2.0]}}, "A finding", source="a source"),
        "served": viz.served_chart(panels, "A finding"),
        "predicted": viz.measured_and_predicted(
            [predicted_row("static"), predicted_row("vllm")], "A finding"
        ),
    }


def test_every_picture_states_its_finding_and_draws_the_same_twice():
    for name, figure in drawn().items():
        assert figure.get_suptitle() == "A finding", name
        assert figure.alt, name
        data, _ = figure._repr_mimebundle_()
        assert base64.b64decode(data["image/png"]) == figure.png(), name


def words_of(figure):
    return [text.get_text() for axes in figure.axes for text in axes.texts if text.get_text()]


def test_lines_wear_their_names_and_a_point_that_more_slots_do_not_move_only_the_fewest():
    figures = drawn()
    assert words_of(figures["plane"]) == ["static", "vLLM V1", "4", "8", "a user must get 30"]
    assert "4" in words_of(figures["chosen"])
    assert words_of(figures["goodput"])[:2] == ["vLLM V1, to 4/s", "static, to 2/s"]
    assert "vLLM V1, at no rate" in words_of(figures["goodput"])
    assert words_of(figures["groups"]) == ["short", "long"]
    assert words_of(figures["predicted"])[::2] == ["+10%", "-50%", "+0%"]


def test_labels_keep_apart_and_stay_on_the_axes():
    placed = viz._apart({"a": 100.0, "b": 99.0, "c": 3.0, "d": 2.0}, 9.0)
    heights = [placed[name] for name in "abcd"]
    assert heights[0] == 100
    assert all(above - below >= 9 for above, below in itertools.pairwise(heights))
    assert heights[-1] >= 0


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: viz.pareto_plane({}, ""), "at least one policy"),
        (
            lambda: viz.pareto_plane({str(n): [(1.0, 1.0, 1)] for n in range(6)}, ""),
            "6 policies in one picture",
        ),
        (lambda: viz.pareto_plane({"a": [(1.0, 1.0, 1)]}, "", highlight="b"), "no policy 'b' to set off"),
        (lambda: viz.measured_and_predicted([], ""), "lesson bench policies"),
        (lambda: viz.two_groups({}, ""), "two groups"),
        (lambda: viz.two_groups({"a": {"x": [1.0]}}, ""), "two groups"),
        (lambda: viz.served_chart({}, ""), "one to three users"),
    ],
)
def test_pictures_refuse_what_they_cannot_draw(draw, message):
    with pytest.raises(CourseError, match=message):
        draw()
