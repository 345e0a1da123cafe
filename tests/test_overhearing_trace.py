"""Who reads whose words, as the Trace records it: never with a sound allocator, always with the broken one."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from lessonlib.overhearing import DoubleFreePool
from lessonlib.scheduling.block_pool import BlockPool
from lessonlib.scheduling.kv_cache import KVCache
from lessonlib.scheduling.scheduler import Scheduler
from lessonlib.simulation.rehearsal import Rehearsal
from lessonlib.trace import Trace


class SoundPool(BlockPool):
    """No other than the course's, but watched, since it is not the course's own class."""


def ride(pool: type[BlockPool], prefix_caching: bool = False, seed: int = 0, forks: bool = False) -> Trace:
    """Twenty riders with prompts that often begin alike, in memory tight enough to throw some out."""
    dice = random.Random(seed)
    scheduler = Scheduler(4, token_budget=12, kv_cache=KVCache(pool(14, 4, 0), prefix_caching))
    for name in range(20):
        prompt = [7] * dice.randint(1, 12) + [name] * dice.randint(1, 6)
        scheduler.add_request(f"r{name}", prompt, dice.randint(1, 14))
        for _ in range(2):
            plan = scheduler.schedule()
            scheduler.update(plan, dict.fromkeys(plan.sampled_ids, 1))
        if forks and scheduler.running:
            scheduler.fork(dice.choice(scheduler.running).id, f"f{name}")
    while scheduler.has_unfinished:
        plan = scheduler.schedule()
        scheduler.update(plan, dict.fromkeys(plan.sampled_ids, 1))
    return scheduler.build_trace()


def laboratory(pool: type[BlockPool]) -> Trace:
    """A first rider leaves; the guest boards into its blocks; a step later the stranger boards."""
    engine = Rehearsal("continuous", slots=2, num_blocks=24, block_size=16, pool=pool)
    engine.add_request("first", "word " * 40, 2)
    engine.step()
    engine.step()
    engine.add_request("guest", "word " * 36, 20)
    engine.step()
    engine.add_request("stranger", "word " * 30, 20)
    while engine.has_unfinished_requests():
        engine.step()
    return engine.trace


def overheard(trace: Trace) -> list[tuple[int, ...]]:
    return list(zip(*(column.tolist() for column in trace.overheard.values()), strict=True))


@pytest.mark.parametrize("prefix_caching", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_with_a_sound_pool_nobody_hears_anybody(prefix_caching: bool, seed: int) -> None:
    assert overheard(ride(SoundPool, prefix_caching, seed, forks=True)) == []


def test_with_the_broken_pool_somebody_does(tmp_path) -> None:
    assert overheard(laboratory(SoundPool)) == []
    trace = laboratory(DoubleFreePool)
    rows = overheard(trace)
    # The stranger boards in step 3 and writes over what the guest stored; the guest reads it from then on.
    assert rows[0][:3] == (3, 1, 2)
    assert {row[1:3] for row in rows} == {(1, 2)}
    assert [row[0] for row in rows] == sorted(row[0] for row in rows)
    assert all(0 < blocks <= 3 for *_, blocks in rows)
    again = Trace.load(trace.save(tmp_path / "ride.json.gz"))
    assert overheard(again) == rows


def test_a_trace_from_before_has_nothing_overheard(tmp_path) -> None:
    data = ride(BlockPool).to_dict()
    del data["overheard"], data["header"]["poisoned"]
    trace = Trace.from_dict(data)
    assert overheard(trace) == []
    assert trace.header.poisoned is False
    assert all(column.dtype == np.int64 for column in trace.overheard.values())


def test_the_course_own_allocator_is_not_watched() -> None:
    assert Scheduler(2, 9, 4)._watch is None
    assert Scheduler(2)._watch is None
    assert Scheduler(2, kv_cache=KVCache(SoundPool(9, 4)))._watch is not None


def test_poison_is_kept_with_the_trace() -> None:
    trace = ride(BlockPool)
    poisoned = replace(trace, header=replace(trace.header, poisoned=True))
    assert Trace.from_dict(poisoned.to_dict()).header.poisoned is True


def test_the_broken_pool_takes_back_a_table_that_names_a_block_twice() -> None:
    """One request may be handed the same block twice: its mistake goes on, and is not stopped by another."""
    pool = DoubleFreePool(6, 4, 0)
    table = pool.allocate(2)
    pool.free(table)
    other = pool.allocate(1)
    twice = [*other, *pool.allocate(1)]
    assert twice[0] == twice[1]
    pool.free(twice)
    assert pool.num_free == 5
