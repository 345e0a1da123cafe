"""A comparison as text: a table for each row of work, which answers agree, and what changed since another file."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import groupby

from lessonlib.metrics import percentiles
from lessonlib.result import KEEPS_UP, LIMITS, Comparison, Result, RowFacts
from lessonlib.split import Part, split

HEADER = (
    f"  {'':<12}{'tok/s':>9}{'spread':>15}{'s':>9}{'raw tok/s':>11}{'of roof':>9}{'$/M tok':>9}"
    f"{'TTFT p50/p99 s':>17}{'gap p99 ms':>12}{'peak GiB':>10}"
)


def text(comparison: Comparison) -> str:
    """The whole comparison, for a terminal."""
    return "\n".join(_lines(comparison))


def _lines(comparison: Comparison) -> Iterator[str]:
    machine = comparison.machine
    where = machine.get("gpu") or f"{machine.get('cpu')}, {machine.get('threads')} threads"
    yield f"{comparison.model}, {comparison.how.get('dtype')}, on {where}; copy bandwidth " + _bandwidth(
        machine
    )
    if not comparison.is_whole:
        yield "not finished: what is here was measured before it ended"
    for row in comparison.rows:
        results = [each for each in comparison.results if each.row == row.name]
        if results:
            yield ""
            yield from _table(row, results)
        if row.kind == "split" and any(each.repetitions and each.trace for each in results):
            yield from _split(comparison, row)
    if any(row.rate for row in comparison.rows):
        yield ""
        yield from _paces(comparison)
    yield ""
    yield from _limits(comparison)
    yield ""
    yield from _agreements(comparison)
    yield from (f"mine: {line}" for line in comparison.how.get("mine", ()))
    for name, reason in comparison.failures.items():
        yield f"{name} did not run: {reason}"
    yield "tok/s, seconds: medians; spread: slowest and fastest run. $: at $30,000 a month, never idle."
    yield "of roof: share of the speed at which memory could deliver weights and K/V. gap: between a request's tokens."


def _table(row: RowFacts, results: list[Result]) -> Iterator[str]:
    yield f"{row.name}: {row.description}, {row.output_tokens:,} in all"
    yield HEADER
    for result in results:
        if result.repetitions:
            yield _line(row, result)
        if result.failure:
            yield f"  {result.contender:<12}{result.failure}"


def _line(row: RowFacts, result: Result) -> str:
    low, high = result.spread
    roof = f"{roofline_share(row, result):.0%}" if row.floor_seconds and not row.rate else "-"
    ttft, gap = "-", "-"
    if latencies := result.latencies:
        spread = percentiles(latencies.ttft)  # type: ignore[arg-type]
        ttft = f"{spread['p50']:.2f}/{spread['p99']:.2f}"
        gap = f"{1000 * latencies.gaps['p99']:,.0f}" if latencies.gaps else "-"
    peak = result.peak_bytes.get("gpu", result.peak_bytes.get("host", 0)) / 2**30
    return (
        f"  {result.contender:<12}{result.rate:>9,.0f}{f'{low:,.0f}-{high:,.0f}':>15}{result.seconds:>9.2f}"
        f"{result.raw_rate:>11,.0f}{roof:>9}{result.dollars_per_million:>9,.2f}{ttft:>17}{gap:>12}{peak:>10.1f}"
    )


def _split(comparison: Comparison, row: RowFacts) -> Iterator[str]:
    """Each contender against the one before: fewer steps, quicker steps, and what they make together."""
    head = f"{'fewer':>10}{'quicker':>10}{'faster':>10}{'by its runs':>16}"
    yield f"  one change at a time{'':<8}{'steps':>9}{'ms a step':>12}{head}"
    first, *others = split(comparison, row.name)
    for part in (first, *others):
        cells = "" if part is first else _gains(part)
        yield f"  {part.contender:<28}{part.steps:>9,}{1e3 * part.seconds_per_step:>12.2f}{cells}"


def _gains(part: Part) -> str:
    gains = (part.fewer_steps, part.quicker_steps, part.speed)
    low, high = part.speeds
    by_runs = "a draw" if part.is_draw else f"{low:.2f}-{high:.2f}"
    return "".join(f"{f'x {gain:.2f}':>10}" for gain in gains) + f"{by_runs:>16}"


def _limits(comparison: Comparison) -> Iterator[str]:
    """For each contender the requests at once, the tokens a step and the K/V memory, as far as it has such limits."""
    yield f"  {'limits':<20}{'requests':>8}{'tokens a step':>15}{'tokens a block':>16}{'blocks':>9}{'GiB of K/V':>12}"
    most: dict[tuple, int] = {}  # a static batch's cache differs from row to row: the largest is shown
    for result in comparison.results:
        *counts, kv_bytes = (result.settings.get(name) for name in LIMITS)
        if any(counts):
            limits = (result.contender, *counts)
            most[limits] = max(most.get(limits, 0), kv_bytes or 0)
    for (name, *counts), kv_bytes in most.items():
        requests, step, block, blocks = (f"{count:,}" if count else "-" for count in counts)
        gib = f"{kv_bytes / 2**30:.2f}" if kv_bytes else "-"
        yield f"  {name:<20}{requests:>8}{step:>15}{block:>16}{blocks:>9}{gib:>12}"


def _paces(comparison: Comparison) -> Iterator[str]:
    """Each contender at each arrival rate: requests offered, started and finished, and 99th percentiles."""
    yield (
        f"  {'requests a second':<26}{'offered':>9}{'started':>9}{'finished':>10}"
        f"{'TTFT p99 s':>12}{'gap p99 ms':>12}"
    )
    for row in comparison.rows:
        for name in comparison.contenders:
            if (pace := comparison.pace(name, row.name)) is None:
                continue
            yield (
                f"  {row.name:<14}{name:<12}{pace.offered:>9.2f}{pace.started:>9.2f}{pace.finished:>10.2f}"
                f"{pace.ttft_p99:>12.2f}{1000 * pace.gap_p99:>12.1f}{'  saturated' if pace.is_saturated else ''}"
            )
    if peak := comparison.how.get("peak"):
        yield f"  a rate in percent: of {peak['rate']:.3g} requests a second, the peak; {peak['source']}"
    yield f"  started: first tokens. saturated: fewer than {KEEPS_UP:.0%} of those that came, so the queue grows."


def roofline_share(row: RowFacts, result: Result) -> float:
    """The least time that memory allows ÷ the time it took."""
    return row.floor_seconds / result.seconds


def speed_ups(comparison: Comparison, row: str, name: str) -> dict[str, float]:
    """Speed-ups of a contender on one row, by what it is compared with: {"hf, warm": 2.1, …}, the largest first.

    The other contender may be taken by its useful tokens, by all tokens that it computed, or by its first run. Each of
    these ratios is measured, and "NAME is so many times faster" can mean any of them.
    """
    result = comparison.of(name, row)
    if result is None or not result.repetitions:
        return {}
    found = {}
    for other in comparison.results:
        if other.row != row or other.contender == name or not other.repetitions:
            continue
        found[f"{other.contender}, warm"] = result.rate / other.rate
        if other.raw_rate > other.rate:
            found[f"{other.contender}, by all that it computed"] = result.rate / other.raw_rate
        if cold := other.settings.get("warm_up_seconds"):
            found[f"{other.contender}, its first run"] = cold / result.seconds
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def _agreements(comparison: Comparison) -> Iterator[str]:
    """Lines for each row and dtype: of how many answers each pair gave the same tokens."""
    for (row, dtype), group in groupby(comparison.agreement, lambda each: (each["row"], each["dtype"])):
        pairs = list(group)
        names = list(dict.fromkeys(name for each in pairs for name in each["pair"]))
        if all(each["same"] == each["requests"] for each in pairs):
            yield f"{row}, {dtype}: all {pairs[0]['requests']} answers identical: {', '.join(names)}"
            continue
        same = ", ".join(f"{' and '.join(each['pair'])} {each['same']}" for each in pairs)
        yield f"{row}, {dtype}: of {pairs[0]['requests']} answers identical: {same}"
        for each in pairs:
            if parts := each.get("first_difference"):
                yield f"  {' and '.join(each['pair'])}: request {parts[0]} parts at token {parts[1]}"


def _bandwidth(machine: dict) -> str:
    found = machine.get("copy_bandwidth")
    return f"{found / 1e9:,.1f} GB/s (read + write)" if found else "not measured"


# ----- against another file -----


def against(new: Comparison, old: Comparison) -> str:
    """What changed from `old` to `new`: circumstances that differ, then each rate that both have."""
    lines = [f"against {old.date}, commit {old.commit}, command {old.command}"]
    lines += [f"  another {difference}" for difference in _differences(new, old)]
    for result in new.results:
        before = old.of(result.contender, result.row)
        if before is None or not before.repetitions or not result.repetitions:
            continue
        change = result.rate / before.rate
        lines.append(
            f"  {result.row:<14}{result.contender:<12}{before.rate:>9,.0f} -> {result.rate:>9,.0f} tok/s, "
            f"x{change:.2f}{_within(result, before)}"
        )
    return "\n".join(lines) if len(lines) > 1 else f"{lines[0]}\n  no row and contender in both"


def _differences(new: Comparison, old: Comparison) -> Iterator[str]:
    for name in ("gpu", "cpu", "threads"):
        if new.machine.get(name) != old.machine.get(name):
            yield f"{name}: {old.machine.get(name)} -> {new.machine.get(name)}"
    if new.model != old.model:
        yield f"model: {old.model} -> {new.model}"
    for name in ("dtype", "slots", "seed"):
        if new.how.get(name) != old.how.get(name):
            yield f"{name}: {old.how.get(name)} -> {new.how.get(name)}"
    yield from sorted(set(_versions(new, old)))


def _versions(new: Comparison, old: Comparison) -> Iterator[str]:
    for result in new.results:
        before = old.of(result.contender, result.row)
        for package, version in result.versions.items():
            was = before.versions.get(package) if before else version
            if was != version:
                yield f"{package} of {result.contender}: {was} -> {version}"


def _within(new: Result, old: Result) -> str:
    """A remark if the two spreads overlap, so that the change may be chance."""
    (low, high), (was_low, was_high) = new.spread, old.spread
    overlap = not math.isnan(low) and low <= was_high and was_low <= high
    return " (within the spread)" if overlap else ""
