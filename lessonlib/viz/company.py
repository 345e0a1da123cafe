"""What a decode step costs as more requests ride: what all share, and what each adds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.ticker import NullLocator

from lessonlib.viz import style


def step_cost(
    riders: Sequence[int],
    parts: Mapping[str, np.ndarray],
    title: str,
    *,
    measured: Mapping[int, float],
    shared: Sequence[str] = ("weights", "all else"),
    source: str = "",
    alt: str = "",
) -> style.Picture:
    """The parts of a step, one on the other, with measured steps as dots.

    Args:
        riders: requests on board, ascending.
        parts: what it is → milliseconds at each number of riders; the first lies at the bottom.
        measured: riders → milliseconds of a measured step.
        shared: the parts that do not grow with the riders.
    """
    with style.applied():
        figure = style.picture(
            3.2, alt or f"Milliseconds of a step against riders: {', '.join(parts)}, measured"
        )
        axes = figure.add_subplot()
        below = np.zeros(len(riders))
        for name, part in parts.items():
            is_shared = name in shared
            color = style.INK if is_shared else style.DECODE
            above = below + part
            axes.fill_between(
                riders, below, above, facecolor=color, alpha=0.45 if is_shared else 0.3, linewidth=0
            )
            axes.plot(riders, above, color=color, linewidth=1.4)
            if part[-1] > 0.04 * sum(each[-1] for each in parts.values()):
                middle = (below[-1] + above[-1]) / 2
                axes.annotate(
                    name,
                    (riders[-1], middle),
                    (7, 0),
                    textcoords="offset points",
                    va="center",
                    color=style.word_color(color),
                    fontsize=8.5,
                    fontweight="bold",
                    annotation_clip=False,
                )
            below = above
        axes.plot(list(measured), list(measured.values()), "o", color=style.INK, markersize=6, clip_on=False)
        last = max(measured)
        axes.annotate("measured", (last, measured[last]), (-8, 6), textcoords="offset points", ha="right")
        axes.set_xscale("log", base=2)
        axes.set_xticks(list(riders), [style.thousands(each) for each in riders])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set(xlabel="riders on board", ylabel="ms a step", xlim=(riders[0], riders[-1]), ylim=(0, None))
        style.quiet_grid(axes)
        return style.finish(figure, title, source)
