"""The pictures of notebook 04 and the recorded results that they show."""

import re
from pathlib import Path

import numpy as np
import pytest

from lessonlib import recorded
from lessonlib.errors import CourseError
from lessonlib.viz import attention, roofline

SCORES = np.array([[0.5, 2.0, -1.0, 0.0], [3.0, 1.0, -np.inf, -np.inf]])
POINTS = [
    roofline.Point("slow", 1, 1e9),
    roofline.Point("fast", 4, 1.6e13, hollow=True),
    roofline.Point("prompt", 3000, 5e14, "prefill"),
    roofline.Point("another", 3000, 6e14, "peer"),
]
DRAWN = {
    "tiles": lambda: attention.score_tiles(SCORES, np.array([2.0, 3.0]), "Found"),
    "blocks": lambda: attention.block_tables({"a": [3, 1], "b": [0]}, 6, "Found", follow="a", columns=4),
    "causal": lambda: attention.causal_tiles(40, 40, 16, "Found"),
    "chunk": lambda: attention.causal_tiles(16, 40, 16, "Found"),
    "plan": lambda: attention.plan([2, 3], ["a", "b"], [0, 0], np.array([[0, 3], [3, 5]]), "Found"),
    "shares": lambda: attention.shares({"even": np.array([[0, 3], [3, 5]])}, [1, 4], ["a", "b"], "Found"),
    "roofline": lambda: roofline.roofline(POINTS, peak=1e15, bandwidth=4e12, title="Found"),
    "ladder": lambda: roofline.ladder_bars(
        {"one": {"loop": 0.01, "kernel": 30.0}}, 40.0, "Found", ceiling_label="copy", highlight="kernel"
    ),
    "peers": lambda: roofline.beside_peers(
        {"row": {"ours": 0.9, "theirs": 0.8}, "without": {"ours": 0.7}}, "Found", xlabel="share", percent=True
    ),
}


@pytest.mark.parametrize("name", DRAWN)
def test_every_picture_states_its_finding_and_draws_the_same_twice(name):
    first, second = DRAWN[name](), DRAWN[name]()
    assert first._suptitle.get_text() == "Found"
    assert len(first.alt) > 10
    assert first.png() == second.png()


def test_tiles_of_a_causal_mask_are_what_counting_says():
    for query_len, context, tile in ((40, 40, 16), (16, 40, 16), (1, 33, 16), (7, 7, 8)):
        kinds = attention.tile_kinds(query_len, context, tile)
        seen = np.arange(context)[None, :] <= np.arange(context - query_len, context)[:, None]
        for (top, left), kind in kinds.items():
            part = seen[top : top + tile, left : left + tile]
            assert kind == ("whole" if part.all() else "masked" if part.any() else "not loaded")
        assert len(kinds) == -(-query_len // tile) * -(-context // tile)


def test_names_of_close_points_are_spread_and_those_of_others_stay():
    speeds = [1.0e12, 1.1e12, 1.2e12, 1e9]
    points = [roofline.Point(str(speed), 4, speed) for speed in speeds] + [roofline.Point("far", 300, 1.1e12)]
    heights = np.log(roofline.name_heights(points, span=20.0))
    assert np.diff(heights[:3]) == pytest.approx([20 * roofline._NAME_HEIGHT] * 2)
    assert heights[2] == pytest.approx(np.log(speeds[2]))
    assert heights[3:] == pytest.approx(np.log([1e9, 1.1e12]))


def test_a_recorded_result_wears_its_label():
    result = recorded.load("h200_bench_attention")
    assert re.fullmatch(
        r"recorded on an NVIDIA H200 on \d{4}-\d\d-\d\d, command python3 .*", recorded.label(result)
    )
    assert result["tier"] == "gpu"
    with pytest.raises(CourseError, match=r"no recorded result 'nothing'.*h200_bench_attention"):
        recorded.load("nothing")


def test_the_record_counts_flash_attention_3_at_its_best_and_the_readme_says_what_it_gives():
    result = recorded.load("h100_bench_attention_best_peers")
    decodes, prompts = result["decode"], result["prefill"]
    for row in [*decodes, *prompts]:
        forms = [micros for name, micros in row["us"].items() if name.startswith("flash_attention_3")]
        assert len(forms) >= 2
        assert row["speed_of_flash_attention_3"] == pytest.approx(min(forms) / row["us"]["ours"])
    speed = {row["row"]: row["speed_of_flash_attention_3"] for row in decodes}
    # How far the ratio moves from one call to another: what is closer to 1 is a tie.
    moves = []
    for row in recorded.load("h100_bench_attention")["decode"]:
        then, now = (
            each["us"] for each in (row, next(each for each in decodes if each["row"] == row["row"]))
        )
        moves.append(abs(then["flash_attention_3"] / then["ours"] - now["flash_attention_3"] / now["ours"]))
    ahead, behind = (sum(sign * (ratio - 1) > max(moves) for ratio in speed.values()) for sign in (1, -1))
    assert not any(row["speed_of_flash_attention_3"] > 1 for row in prompts)
    readme = " ".join((Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8").split())
    ties = {9: "nine"}[len(decodes) - ahead - behind]
    counts = f"ahead of it on {ahead} and behind on {behind}, {ties} are ties"
    assert f"of {len(decodes)} decode batches the kernel is {counts}" in readme
