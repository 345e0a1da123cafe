"""Broken schedulers: each bug that has bitten a real engine is put in, and the random rides must find it."""

from __future__ import annotations

import hashlib

import pytest
import test_scheduling_machine as rides
from hypothesis import Phase

from lessonlib.scheduling import kv_cache
from lessonlib.scheduling.block_pool import BlockPool
from lessonlib.scheduling.kv_cache import KVCache
from lessonlib.scheduling.policies import POLICIES
from lessonlib.scheduling.scheduler import Scheduler

honest_commit, honest_preempt = KVCache.commit, Scheduler._preempt


def hit_the_whole_prompt(self, request):
    if not self.prefix_caching:
        return []
    blocks = [self.pool.lookup(self._hash(request, i)) for i in range(request.num_tokens // self.block_size)]
    return blocks[: blocks.index(None)] if None in blocks else blocks


def keep_the_hash(self):
    block, _ = self._free.popitem(last=False)
    self.ref_counts[block] = 1
    return block


def stay_in_the_free_queue(self, blocks):
    for block in blocks:
        self.ref_counts[block] += 1


def free_what_others_hold(self, blocks):
    for block in blocks:
        self.ref_counts[block] = 0
        self._free[block] = None


def forget_a_block(self, request):
    self.pool.free(request.block_table[:2])
    request.block_table = []


def remember_before_it_is_computed(self, request, num_computed):
    honest_commit(self, request, min(request.num_tokens, len(request.token_ids)))


def lose_the_words(self, plan, request, candidates):
    honest_preempt(self, plan, request, candidates)
    request.num_output_tokens = 0


def prompts_before_decodes(self, plan, order):
    for position, request in enumerate(order):
        tokens = self._chunk(request, request.num_new_tokens, plan.budget) * (not request.is_exhausted)
        if request.is_running and tokens and self._make_room(plan, request, tokens, order, position):
            self._schedule_tokens(plan, request, tokens)


MUTANTS = {
    "a shared block is written into": (KVCache, "_must_copy", lambda self, request: False),
    "salts are ignored": (kv_cache, "root_hash", lambda seed, salt="": seed),
    "a hash forgets what came before": (
        kv_cache,
        "block_hash",
        lambda parent, tokens: hashlib.sha256(repr(list(tokens)).encode()).digest(),
    ),
    "a hit leaves nothing to compute": (KVCache, "cached_prefix", hit_the_whole_prompt),
    "a block keeps its hash when it changes hands": (BlockPool, "_take_oldest", keep_the_hash),
    "a revived block stays in the free queue": (BlockPool, "touch", stay_in_the_free_queue),
    "a shared block is freed by the first to leave": (BlockPool, "free", free_what_others_hold),
    "a long table leaks": (KVCache, "free", forget_a_block),
    "a block is found before it is computed": (KVCache, "commit", remember_before_it_is_computed),
    "a preempted request loses its words": (Scheduler, "_preempt", lose_the_words),
    "a prompt takes the tokens of decodes": (Scheduler, "_serve", prompts_before_decodes),
}


@pytest.mark.prove
@pytest.mark.parametrize("bug", MUTANTS)
def test_the_random_rides_find_it(bug, monkeypatch, tmp_path):
    monkeypatch.setattr(rides, "FAILING", tmp_path)
    monkeypatch.setattr(rides, "EXAMPLES", 500)
    monkeypatch.setattr(*MUTANTS[bug])
    for name in ("vllm", "sla", "sjf", "splitfuse", "static"):
        try:
            rides.machine(POLICIES[name], [Phase.generate])("runTest").debug()
        except Exception:
            return
    pytest.fail(f"nobody noticed that {bug}")
