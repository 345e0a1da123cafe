"""The picture of one step's batch in notebook 05: riders' tokens end to end, and where each goes in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from lessonlib.viz import style

DECODE_LOOK: dict[str, Any] = {"facecolor": style.DECODE, "edgecolor": "white"}
PREFILL_LOOK: dict[str, Any] = {
    "facecolor": style.PREFILL,
    "edgecolor": "white",
    "hatch": style.PREFILL_HATCH,
}


def flat_batch(
    names: Sequence[str],
    query_start_loc: Sequence[int],
    positions: Sequence[int],
    slot_mapping: Sequence[int],
    block_size: int,
    title: str,
    *,
    num_decodes: int,
    source: str = "",
    alt: str = "",
) -> style.Picture:
    """One row of tokens, rider after rider, with each token's position, and below it its block and place.

    Args:
        names: riders, in the batch's order; the first `num_decodes` decode.
        query_start_loc: `[num_riders + 1]`, where each rider's tokens begin.
        positions, slot_mapping: `[num_tokens]`.
    """
    count = len(positions)
    with style.applied():
        figure = style.picture(2.2, alt or f"A batch of {count} tokens of {', '.join(names)}")
        axes = figure.add_subplot()
        for rider, name in enumerate(names):
            look = DECODE_LOOK if rider < num_decodes else PREFILL_LOOK
            first, end = query_start_loc[rider], query_start_loc[rider + 1]
            for token in range(first, end):
                _cell(axes, token, 1, str(positions[token]), look)
                block, place = divmod(slot_mapping[token], block_size)
                _cell(axes, token, 0, f"{block}:{place}", look, small=True)
            axes.plot([first + 0.06, end - 0.06], [2.12, 2.12], color=style.INK, linewidth=1.2)
            middle = (first + end) / 2
            axes.text(
                middle, 2.22, name, ha="center", va="bottom", fontsize=8.5, fontweight="bold", rotation=30
            )
        for place in query_start_loc:
            axes.text(place, -0.12, str(place), ha="center", va="top", fontsize=8.5)
        for y, words in ((1.5, "position"), (0.5, "block : place"), (-0.3, "query_start_loc")):
            axes.text(-0.25, y, words, ha="right", va="center", fontsize=8.5)
        axes.set(xlim=(-0.2 - count * 0.18, count + 0.2), ylim=(-0.6, 3.0))
        axes.axis("off")
        return style.finish(figure, title, source)


def _cell(axes: Axes, x: float, y: float, words: str, look: dict[str, Any], small: bool = False) -> None:
    axes.add_patch(Rectangle((x + 0.04, y + 0.06), 0.92, 0.88, linewidth=0.6, **look))
    plate = {"boxstyle": "round,pad=0.12", "facecolor": "white", "edgecolor": "none", "alpha": 0.85}
    axes.text(
        x + 0.5,
        y + 0.5,
        words,
        ha="center",
        va="center",
        fontsize=6.5 if small else 8,
        color="#222",
        bbox=plate,
    )
