"""A speed-up split into the parts of a chain of contenders, each one change away from the one before, on one row.

All contenders give the same tokens, so the speed-up of each over the one before is a measured ratio with two factors:

    speed-up = (steps before / steps) × (seconds a step before / seconds a step)

The speed-ups of the whole chain multiply to the ratio of its ends. Steps are counted and so exact; seconds spread from
run to run, and a link whose runs overlap with those of the one before is a draw.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from lessonlib.errors import CourseError
from lessonlib.result import Comparison, Result


@dataclass(frozen=True)
class Part:
    """One contender of the chain.

    Attributes:
        contender: its name.
        rate: useful tokens a second, the median of its runs.
        steps: forward passes that the row took.
        seconds_per_step: seconds of the whole row ÷ steps, so that the time between steps is included.
        speed, fewer_steps, quicker_steps: ratios to the one before, `speed` the product of the other two; 1 for the
            first contender.
        rates: of its slowest and of its fastest run.
        speeds: the least and the most that `speed` could be: its slowest run against the fastest of the one before,
            and the other way round.
    """

    contender: str
    rate: float
    steps: int
    seconds_per_step: float
    speed: float = 1.0
    fewer_steps: float = 1.0
    quicker_steps: float = 1.0
    rates: tuple[float, float] = (0.0, 0.0)
    speeds: tuple[float, float] = (1.0, 1.0)

    @property
    def is_draw(self) -> bool:
        """Whether some run of the one before was as fast as some run of this one. Never the first contender."""
        low, high = self.speeds
        return low <= 1.0 <= high and low < high


def split(comparison: Comparison, row: str, chain: Sequence[str] = ()) -> list[Part]:
    """The chain's parts on a row, in order.

    Args:
        row: its name.
        chain: names of contenders; empty: all that finished the row and have a Trace, in the order they ran.

    Raises:
        CourseError: for a contender without a timed run and a Trace on the row.
    """
    names = chain or [each.contender for each in comparison.results if each.row == row and _is_whole(each)]
    parts: list[Part] = []
    for name in names:
        part = _part(comparison.of(name, row), name, row)
        parts.append(_against(parts[-1], part) if parts else part)
    if not parts:
        raise CourseError(f"no contender finished row {row!r} of this comparison: choose another row")
    return parts


def _is_whole(result: Result | None) -> bool:
    return result is not None and bool(result.repetitions) and result.trace is not None


def _part(result: Result | None, name: str, row: str) -> Part:
    if result is None or result.trace is None or not result.repetitions:
        raise CourseError(f"{name} has no timed run with a Trace on row {row!r}: measure it, or leave it out")
    steps = result.trace.num_steps
    rates = [each.rate for each in result.repetitions]
    return Part(name, result.rate, steps, result.seconds / steps, rates=(min(rates), max(rates)))


def _against(before: Part, part: Part) -> Part:
    steps, step = before.steps / part.steps, before.seconds_per_step / part.seconds_per_step
    return replace(
        part, speed=steps * step, fewer_steps=steps, quicker_steps=step, speeds=speeds(before, part)
    )


def speeds(before: Part, part: Part) -> tuple[float, float]:
    """The least and the most that the ratio of their rates could be, by their slowest and fastest runs."""
    (slow, fast), (slow_before, fast_before) = part.rates, before.rates
    return slow / fast_before, fast / slow_before


def factor(low: float, high: float) -> str:
    """A factor as exactly as it is known: "× 1.6", or "× 2.9 to 3.6" where its bounds differ in two digits."""
    return f"× {span(low, high)}"


def span(low: float, high: float) -> str:
    """Both bounds of a ratio in two digits, or one where they look alike."""
    ends = dict.fromkeys((two_digits(low), two_digits(high)))
    return " to ".join(ends)


def two_digits(ratio: float) -> str:
    """A ratio in two digits where it is below 10, and whole above: 0.87, 1.6, 24."""
    return f"{ratio:,.{2 if ratio < 1 else 1 if ratio < 10 else 0}f}"
