"""The engine's ladder as pictures, from a recorded `lesson bench engine`: what each change bought, and of what."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lessonlib.counting import count
from lessonlib.viz import style


def measured_rungs(result: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The rungs that were ridden on the machine of the record."""
    return [row for row in result["rungs"] if row["measured"]]


def rates(result: Mapping[str, Any], title: str, *, source: str, alt: str = "") -> style.Picture:
    """One bar a rung, in tokens a second, with what its ride was made of: steps and time a step."""
    rows = measured_rungs(result)
    with style.applied():
        figure = style.picture(
            0.9 + 0.42 * len(rows), alt or f"Ladder: tok/s of {', '.join(row['rung'] for row in rows)}"
        )
        axes = figure.add_subplot()
        most = max(row["tokens_per_second"] for row in rows)
        for place, row in enumerate(rows):
            rate = row["tokens_per_second"]
            axes.barh(-place, rate, 0.7, color=style.DECODE)
            words = f"{count(row['steps'], 'step')} × {1e3 * row['seconds_per_step']:.1f} ms"
            axes.annotate(
                words, (rate, -place), (5, 0), textcoords="offset points", va="center", fontsize=8.5
            )
        axes.set_yticks([-place for place in range(len(rows))], [row["rung"] for row in rows])
        axes.set(xlabel="tok/s", xlim=(0, 1.45 * most))
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
        axes.xaxis.set_major_formatter(style.thousands)
        return style.finish(figure, title, source)


def factors(result: Mapping[str, Any], title: str, *, source: str, alt: str = "") -> style.Picture:
    """Each rung's gain over the one before, split in two factors that multiply: fewer steps, quicker steps."""
    rows = [row for row in measured_rungs(result) if row["against_before"]]
    with style.applied():
        figure = style.picture(
            1.3 + 0.5 * len(rows), alt or f"Gains of {', '.join(row['rung'] for row in rows)}"
        )
        axes = figure.add_subplot()
        looks = (
            ("fewer_steps", style.DECODE, None, 0.2),
            ("quicker_steps", style.IDLE, style.IDLE_HATCH, -0.2),
        )
        for place, row in enumerate(rows):
            for key, color, hatch, lift in looks:
                gain = row["against_before"][key]
                axes.barh(lift - place, gain - 1, 0.36, left=1, color=color, hatch=hatch, edgecolor="white")
                outside = (5 if gain >= 1 else -5, 0)
                side = "left" if gain >= 1 else "right"
                axes.annotate(
                    f"× {gain:.2f}",
                    (gain, lift - place),
                    outside,
                    textcoords="offset points",
                    va="center",
                    ha=side,
                    fontsize=8,
                )
        axes.axvline(1, color=style.INK, linewidth=1)
        gains = [row["against_before"][key] for row in rows for key, *_ in looks]
        axes.set_xlim(min(0.8, min(gains) - 0.2), max(gains) + 0.25)
        axes.set_yticks([-place for place in range(len(rows))], [row["rung"] for row in rows])
        axes.set_xlabel("times the rung before (upper: fewer steps, lower: quicker steps)")
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
        return style.finish(figure, title, source)


def without(result: Mapping[str, Any], title: str, *, source: str, alt: str = "") -> style.Picture:
    """The whole engine's time without each change alone: the median, and a line from the least to the most."""
    rows = result["rows"][1:]
    with style.applied():
        figure = style.picture(
            1.1 + 0.42 * len(rows),
            alt or f"Times of the engine without {', '.join(row['without'] for row in rows)}",
        )
        axes = figure.add_subplot()
        for y, row in enumerate(rows):
            times = row["times_the_whole"]
            axes.plot([times["least"], times["most"]], [-y, -y], color=style.INK, linewidth=2)
            axes.plot([times["median"]], [-y], marker="o", color=style.DECODE, markersize=8)
            is_dearer = times["median"] >= 1
            axes.annotate(
                f"× {times['median']:.2f}",
                (times["most" if is_dearer else "least"], -y),
                (9 if is_dearer else -9, 0),
                textcoords="offset points",
                va="center",
                ha="left" if is_dearer else "right",
            )
        axes.axvline(1, color=style.INK, linewidth=1)
        axes.set_yticks([-y for y in range(len(rows))], [f"without {row['without']}" for row in rows])
        least = min(row["times_the_whole"]["least"] for row in rows)
        most = max(row["times_the_whole"]["most"] for row in rows)
        axes.set(xlabel="times the whole engine's seconds", xlim=(min(least, 1.0) - 0.4, most + 0.4))
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
        return style.finish(figure, title, source)


def predictions(result: Mapping[str, Any], title: str, *, source: str, alt: str = "") -> style.Picture:
    """Each rung's measured seconds, and beside them what the simulator said, with the error."""
    rows = measured_rungs(result)
    with style.applied():
        figure = style.picture(1.1 + 0.42 * len(rows), alt or "Measured and predicted seconds of each rung")
        axes = figure.add_subplot()
        for place, row in enumerate(rows):
            measured, told = row["seconds"], row["predicted"]["seconds"]
            axes.barh(-place, measured, 0.6, color=style.DECODE)
            axes.plot([told], [-place], marker="D", color=style.INK, markersize=8, markeredgecolor="white")
            words = f"{row['predicted']['seconds_error']:+.0%}"
            axes.annotate(
                words,
                (max(measured, told), -place),
                (9, 0),
                textcoords="offset points",
                va="center",
                fontsize=8.5,
            )
        axes.set_yticks([-place for place in range(len(rows))], [row["rung"] for row in rows])
        axes.set(
            xlabel="seconds: bar measured, diamond predicted",
            xlim=(0, 1.15 * max(row["seconds"] for row in rows)),
        )
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
        return style.finish(figure, title, source)
