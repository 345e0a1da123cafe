"""The pictures of notebook 04 that show how attention is cut: tiles, blocks, masks and shares, from arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.patches import Rectangle

from lessonlib.viz import style

# Riders of one kind share its color; what tells them apart is a fill, a hatch or a tint.
_LOOKS: tuple[dict[str, Any], ...] = (
    {"facecolor": style.DECODE, "edgecolor": "white"},
    {"facecolor": "#B3D5E8", "edgecolor": style.DECODE, "hatch": "...."},
    {"facecolor": style.PREFILL, "edgecolor": "white", "hatch": style.PREFILL_HATCH},
)
# Decoding riders alone, in three tints of their color.
_DECODES: tuple[dict[str, Any], ...] = (
    {"facecolor": style.DECODE, "edgecolor": "white"},
    {"facecolor": "#B3D5E8", "edgecolor": style.DECODE, "hatch": "...."},
    {"facecolor": "#66AAD1", "edgecolor": "white", "hatch": "xx"},
)
_FREE: dict[str, Any] = {
    "facecolor": style.IDLE + "20",
    "edgecolor": style.IDLE + "90",
    "hatch": style.IDLE_HATCH,
}


def score_tiles(
    scores: np.ndarray, best: np.ndarray, title: str, *, source: str = "", alt: str = ""
) -> style.Picture:
    """One bar a token, tile after tile, and the running maximum as a stair; what is masked is hatched.

    Args:
        scores: float [tiles, tile], -inf where a tile reaches beyond the end.
        best: float [tiles], the largest score after each tile.
    """
    tiles, tile = scores.shape
    with style.applied():
        figure = style.picture(
            2.7, alt or f"Scores of {tiles} tiles of {tile} tokens and the running maximum"
        )
        axes = figure.add_subplot()
        flat = scores.ravel()
        seen = np.isfinite(flat)
        low, high = flat[seen].min(), flat[seen].max()
        at = np.arange(flat.size)
        axes.bar(at[seen], flat[seen], 0.8, color=style.DECODE)
        if not seen.all():
            hidden = at[~seen]
            axes.add_patch(Rectangle((hidden[0] - 0.5, low), hidden.size, high - low, linewidth=0, **_FREE))
            axes.text(hidden.mean(), (low + high) / 2, "masked", ha="center", va="center", fontsize=8.5)
        edges = np.arange(tiles + 1) * tile - 0.5
        axes.stairs(best, edges, color=style.INK, linewidth=2.2, baseline=None)
        axes.annotate(
            "largest so far",
            (edges[0], best[0]),
            (2, 4),
            textcoords="offset points",
            va="bottom",
            fontsize=8.5,
            fontweight="bold",
        )
        for place in range(tiles):
            axes.axvline(edges[place + 1], color=style.INK, linewidth=0.8, linestyle=(0, (3, 3)))
            axes.text(
                edges[place] + tile / 2, low - 0.12 * (high - low), f"tile {place}", ha="center", va="top"
            )
        axes.axhline(0, color=style.INK, linewidth=0.8)
        axes.set(xlabel="token", ylabel="score", xlim=(edges[0], edges[-1]))
        axes.set_ylim(low - 0.3 * (high - low), high + 0.22 * (high - low))
        return style.finish(figure, title, source)


def block_tables(
    tables: Mapping[str, Sequence[int]],
    num_blocks: int,
    title: str,
    *,
    follow: str,
    columns: int = 16,
    source: str = "",
    alt: str = "",
) -> style.Picture:
    """The cache as a shelf of numbered blocks, each in its owner's look; one table above it, with its arrows.

    Args:
        tables: rider -> block ids in the order of the tokens; at most three riders.
        follow: the rider whose table is drawn, entry by entry.
    """
    rows = -(-num_blocks // columns)
    with style.applied():
        figure = style.picture(1.55 + 0.36 * rows, alt or f"Block table of {follow} over {num_blocks} blocks")
        axes = figure.add_subplot()
        owner = {block: name for name, blocks in tables.items() for block in blocks}
        looks = dict(zip(tables, _LOOKS, strict=False))
        for block in range(num_blocks):
            look = looks[owner[block]] if block in owner else _FREE
            _cell(axes, block % columns, -(block // columns), block, look)
        first = (columns - 2.2 * len(tables[follow])) / 2
        for entry, block in enumerate(tables[follow]):
            x, y = first + 2.2 * entry, 2.6
            _cell(axes, x, y, block, looks[follow], above=f"entry {entry}")
            axes.annotate(
                "",
                (block % columns + 0.45, -(block // columns) + 0.92),
                (x + 0.45, y),
                arrowprops={"arrowstyle": "->", "color": style.INK, "linewidth": 1.1},
            )
        axes.text(first - 0.3, 3.05, f"{follow}:", ha="right", va="center", fontsize=8.5, fontweight="bold")
        words = [*tables, "free"]
        for place, name in enumerate(words):
            x = columns * place / len(words)
            y = -rows - 0.2
            axes.add_patch(Rectangle((x, y), 0.6, 0.6, linewidth=0.6, **(looks.get(name) or _FREE)))
            axes.text(x + 0.8, y + 0.3, name, va="center", fontsize=8.5)
        axes.set(xlim=(-0.1, columns + 0.1), ylim=(-rows - 0.3, 4.4))
        axes.axis("off")
        return style.finish(figure, title, source)


def _cell(axes: Axes, x: float, y: float, block: int, look: dict[str, Any], above: str = "") -> None:
    axes.add_patch(Rectangle((x, y), 0.9, 0.9, linewidth=0.6, **look))
    plate = {"boxstyle": "round,pad=0.12", "facecolor": "white", "edgecolor": "none", "alpha": 0.85}
    axes.text(
        x + 0.45, y + 0.45, str(block), ha="center", va="center", fontsize=7, color="#333333", bbox=plate
    )
    if above:
        axes.text(x + 0.45, y + 1.05, above, ha="center", va="bottom", fontsize=7.5)


def tile_kinds(query_len: int, context: int, tile: int) -> dict[tuple[int, int], str]:
    """(first query row, first key) of each tile -> "whole", "masked" or "not loaded"."""
    computed = context - query_len
    kinds = {}
    for top in range(0, query_len, tile):
        for left in range(0, context, tile):
            last_key = min(left + tile, context) - 1
            last_query = computed + min(top + tile, query_len) - 1
            seen_by_all = last_key <= computed + top
            kinds[top, left] = "whole" if seen_by_all else "masked" if left <= last_query else "not loaded"
    return kinds


def causal_tiles(
    query_len: int, context: int, tile: int, title: str, *, source: str = "", alt: str = ""
) -> style.Picture:
    """Which keys each query token sees, cut into tiles: seen by all rows, on the diagonal, never loaded.

    The rows of one program are `tile` query tokens; queries are the last `query_len` of `context` tokens.
    """
    pale = {"facecolor": to_rgba(style.PREFILL, 0.3), "linewidth": 0}
    looks = {"whole": {"facecolor": style.PREFILL, "linewidth": 0}, "masked": pale, "not loaded": _FREE}
    computed = context - query_len
    with style.applied():
        figure = style.picture(
            1.0 + 5.0 * query_len / context if query_len < context else 3.4,
            alt or f"Causal mask of {query_len} queries over {context} keys, in tiles",
        )
        axes = figure.add_subplot()
        for (top, left), kind in tile_kinds(query_len, context, tile).items():
            wide, high = min(tile, context - left), min(tile, query_len - top)
            axes.add_patch(Rectangle((left, top), wide, high, **{"linewidth": 0, **looks[kind]}))
            if kind == "masked":
                _staircase(axes, top, top + high, left, left + wide, computed)
            axes.add_patch(Rectangle((left, top), wide, high, fill=False, edgecolor="white", linewidth=2))
            if wide == tile:
                _name_tile(axes, kind, left, top, wide, high)
        axes.set(xlim=(0, context), ylim=(query_len, 0), xlabel="key token", ylabel="query token")
        axes.set_xticks([*range(0, context, tile), context])
        rows = [*range(0, query_len, tile), query_len]
        axes.set_yticks(rows, [str(computed + row) for row in rows])
        axes.set_aspect("equal")
        return style.finish(figure, title, source)


def _name_tile(axes: Axes, kind: str, left: float, top: float, wide: float, high: float) -> None:
    """The kind in the middle of a tile; below left where the diagonal runs through it."""
    masked = kind == "masked"
    x, y = (0.06, 0.94) if masked else (0.5, 0.5)
    axes.text(
        left + x * wide,
        top + y * high,
        kind,
        ha="left" if masked else "center",
        va="bottom" if masked else "center",
        fontsize=8.5,
        color=style.INK if kind == "not loaded" else "#333333",
        fontweight="bold",
    )


def _staircase(axes: Axes, top: int, bottom: int, left: int, right: int, computed: int) -> None:
    """The seen part of a tile on the diagonal, a bar a query token."""
    for row in range(top, bottom):
        wide = min(right, computed + row + 1) - left
        if wide > 0:
            axes.add_patch(Rectangle((left, row), wide, 1, facecolor=style.PREFILL, linewidth=0))


def shares(
    plans: Mapping[str, np.ndarray],
    row_tiles: Sequence[int],
    row_names: Sequence[str],
    title: str,
    *,
    source: str = "",
    alt: str = "",
) -> style.Picture:
    """Who works on which tiles: a bar a program, cut where one row of work ends and the next begins.

    Args:
        plans: name -> int [programs, 2], the tiles [first, last) of each program on the line of all tiles.
        row_tiles: tiles of each row of work (a sequence and K/V head), in the order of that line.
        row_names: of the same length; rows of one name look alike.
    """
    borders = np.concatenate([[0], np.cumsum(row_tiles)])
    looks = dict(zip(dict.fromkeys(row_names), _DECODES, strict=False))
    heights = [len(plan) for plan in plans.values()]
    longest = max(int((plan[:, 1] - plan[:, 0]).max()) for plan in plans.values())
    with style.applied():
        figure = style.picture(
            1.2 + 0.24 * sum(heights) + 0.2 * len(plans), alt or f"Shares: {', '.join(plans)}"
        )
        panels = figure.subplots(len(plans), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
        for axes, (name, plan) in zip(panels, plans.items(), strict=True):
            slowest = int((plan[:, 1] - plan[:, 0]).max())
            for program, (first, last) in enumerate(plan.tolist()):
                cuts = [first, *[int(b) for b in borders if first < b < last], last]
                for start, end in pairwise(cuts):
                    name_of_row = row_names[int(np.searchsorted(borders, start, side="right")) - 1]
                    _bar(axes, program, start - first, end - first, looks[name_of_row])
                _bar(axes, program, last - first, slowest, _FREE)
            axes.set(xlim=(0, longest * 1.02), ylim=(len(plan), 0), yticks=np.arange(len(plan)) + 0.5)
            axes.set_yticklabels([str(program) for program in range(len(plan))], fontsize=7.5)
            axes.set_ylabel("program", fontsize=8)
            axes.set_title(f"{name}: {slowest} tiles until the last is done", loc="left", fontsize=9)
            axes.tick_params(axis="y", length=0)
        panels[-1].set_xlabel("tiles, one after another")
        _name_looks(figure, {**looks, "waits": _FREE})
        return style.finish(figure, title, source)


def plan(
    row_tiles: Sequence[int],
    row_names: Sequence[str],
    row_heads: Sequence[int],
    programs: np.ndarray,
    title: str,
    *,
    source: str = "",
    alt: str = "",
) -> style.Picture:
    """The line of all tiles, three times: whose they are, of which K/V head, and which program takes them.

    Dashed lines are borders between programs. A row of work that one of them crosses is cut; its head is marked so.

    Args:
        row_tiles, row_names, row_heads: tiles, sequence and K/V head of each row of work, in the order of the line.
        programs: int [programs, 2], the tiles [first, last) of each program.
    """
    ends = np.cumsum(row_tiles)
    rows = list(zip(ends - np.asarray(row_tiles), ends, row_names, row_heads, strict=True))
    looks = dict(zip(dict.fromkeys(row_names), _DECODES, strict=False))
    borders = [int(last) for _, last in programs[:-1]]
    with style.applied():
        figure = style.picture(
            2.1,
            alt or f"{len(programs)} programs on a line of {int(ends[-1])} tiles, {len(rows)} rows of work",
        )
        axes = figure.add_subplot()
        for name in dict.fromkeys(row_names):
            parts = [row for row in rows if row[2] == name]
            _strip(axes, 0, parts[0][0], parts[-1][1], name, looks[name])
        for first, last, name, head in rows:
            cut = any(first < border < last for border in borders)
            _strip(axes, 1, first, last, f"{head}, cut" if cut else str(head), looks[name])
        for program, (first, last) in enumerate(programs.tolist()):
            _strip(axes, 2, first, last, f"program {program}", _PROGRAM)
        for border in borders:
            axes.axvline(border, color=style.PREEMPTED, linewidth=1.4, linestyle=(0, (4, 2)))
        axes.set(xlim=(0, int(ends[-1])), ylim=(3, 0), xlabel="tile, numbered along the line")
        axes.set_xticks([0, *borders, int(ends[-1])])
        axes.set_yticks([0.5, 1.5, 2.5], ["rider", "K/V head", "taken by"])
        axes.tick_params(axis="y", length=0)
        return style.finish(figure, title, source)


_PROGRAM: dict[str, Any] = {"facecolor": style.IDLE + "38", "edgecolor": style.IDLE}


def _strip(axes: Axes, row: int, first: float, last: float, label: str, look: dict[str, Any]) -> None:
    """A piece of one of the plan's lines, and its name in it."""
    axes.add_patch(Rectangle((first, row + 0.1), last - first, 0.8, linewidth=0.8, **look))
    plate = {"boxstyle": "round,pad=0.12", "facecolor": "white", "edgecolor": "none", "alpha": 0.85}
    axes.text(
        (first + last) / 2, row + 0.5, label, ha="center", va="center", fontsize=7.5, color="#333333", bbox=plate
    )  # fmt: skip


def _bar(axes: Axes, program: int, start: int, end: int, look: dict[str, Any]) -> None:
    if end > start:
        axes.add_patch(Rectangle((start, program + 0.1), end - start, 0.8, linewidth=0.8, **look))


def _name_looks(figure: style.Picture, looks: Mapping[str, dict[str, Any]]) -> None:
    """What the looks mean, in one line below: bars are too short for names."""
    figure.legend(
        [Rectangle((0, 0), 1, 1, linewidth=0.6, **look) for look in looks.values()],
        list(looks),
        loc="outside lower right",
        ncols=len(looks),
        frameon=False,
        fontsize=8,
        handlelength=1.3,
        borderaxespad=0,
    )
