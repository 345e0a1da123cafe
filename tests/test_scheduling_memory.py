"""The block pool, block tables, prefix hashes, copy-on-write, and memory in one piece."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lessonlib.errors import CourseError
from lessonlib.scheduling.block_pool import BlockPool, block_hash, root_hash
from lessonlib.scheduling.kv_cache import KVCache
from lessonlib.scheduling.request import RequestState
from lessonlib.simulation.contiguous import (
    BuddyAllocator,
    ContiguousAllocator,
    contiguous_regions,
    contiguous_shares,
    memory_shares,
    reservations,
)
from lessonlib.workload import Workload, azure_lengths, azure_prompts


def cache(num_blocks=9, block_size=4, prefix_caching=True) -> KVCache:
    return KVCache(BlockPool(num_blocks, block_size, seed=0), prefix_caching)


def request(name: str, tokens, salt="") -> RequestState:
    return RequestState(name, len(tokens), 8, token_ids=list(tokens), salt=salt)


def board(memory: KVCache, rider: RequestState) -> list[int]:
    """Board, compute everything, let others find it; returns the blocks that were found."""
    prefix = memory.cached_prefix(rider)
    memory.allocate(rider, rider.num_tokens, prefix)
    rider.num_computed_tokens = rider.num_tokens
    memory.commit(rider, rider.num_tokens)
    return prefix


# ----- the pool -----


def test_block_zero_is_never_handed_out():
    pool = BlockPool(4)
    assert pool.allocate(3) == [1, 2, 3]
    assert pool.num_free == 0


def test_too_many_blocks_take_nothing():
    pool = BlockPool(4)
    with pytest.raises(CourseError, match="5 blocks wanted, 3 free"):
        pool.allocate(5)
    assert pool.num_free == 3


def test_unhashed_blocks_are_reused_first_and_tails_before_heads():
    pool = BlockPool(6)
    a, b, c, d = pool.allocate(4)
    pool.register(a, b"head")
    pool.register(b, b"tail")
    pool.free([a, b, c])
    assert pool.free_blocks() == [c, 5, b, a]
    pool.free([d])
    assert pool.free_blocks()[0] == d


def test_a_prefix_is_forgotten_when_its_block_is_handed_out_and_not_before():
    pool = BlockPool(3)
    (block,) = pool.allocate(1)
    pool.register(block, b"words")
    pool.free([block])
    assert pool.lookup(b"words") == block
    pool.allocate(2)
    assert pool.lookup(b"words") is None


def test_touch_revives_a_free_block():
    pool = BlockPool(3)
    (block,) = pool.allocate(1)
    pool.register(block, b"words")
    pool.free([block])
    pool.touch([block])
    assert not pool.is_free(block)
    pool.touch([block])
    pool.free([block])
    assert pool.ref_counts[block] == 1


@pytest.mark.parametrize("blocks", [[2], [0], [1, 2], [1, 1], [4], [-3]])
def test_freeing_what_is_not_held_changes_nothing(blocks):
    pool = BlockPool(4)
    pool.allocate(1)
    with pytest.raises(CourseError, match="freed more often than held"):
        pool.free(blocks)
    assert pool.ref_counts == [0, 1, 0, 0]


def test_a_block_held_twice_can_be_freed_twice_at_once():
    pool = BlockPool(4)
    pool.touch(pool.allocate(1))
    pool.free([1, 1])
    assert (pool.ref_counts[1], pool.num_free) == (0, 3)
    assert sorted(pool.free_blocks()) == [1, 2, 3]


def test_contents_are_found_as_long_as_one_block_has_them():
    pool = BlockPool(4)
    for block in pool.allocate(3):
        pool.register(block, b"words")
    for gone, left in ((1, 2), (2, 3), (3, None)):
        pool.free([gone])
        assert pool.lookup(b"words") == gone
        assert pool.allocate(1) == [gone]
        assert pool.lookup(b"words") == left


def test_a_block_keeps_the_hash_that_it_has():
    pool = BlockPool(3)
    (block,) = pool.allocate(1)
    pool.register(block, b"words")
    pool.register(block, b"others")
    assert (pool.lookup(b"words"), pool.lookup(b"others")) == (block, None)


def test_a_prefix_is_found_while_one_of_two_who_computed_it_is_there():
    """Both boarded in one step, so each has blocks of its own."""
    memory = cache()
    ann, bob = request("ann", range(13)), request("bob", range(13))
    for rider in (ann, bob):
        memory.allocate(rider, 13)
    for rider in (ann, bob):
        memory.commit(rider, 13)
    memory.free(ann)
    memory.allocate(request("cyd", range(100, 116)), 16)  # takes the blocks that ann had
    assert memory.cached_prefix(request("dan", range(13))) == bob.block_table[:3]


@pytest.mark.parametrize(("blocks", "size"), [(1, 16), (0, 16), (-3, 16), (4, 0), (4, -1)])
def test_impossible_pools_are_refused(blocks, size):
    with pytest.raises(CourseError):
        BlockPool(blocks, size)


# ----- hashes -----


def test_the_same_words_behind_another_beginning_get_another_hash():
    root = root_hash(b"seed")
    first, second = block_hash(root, [1, 2]), block_hash(root, [3, 4])
    assert block_hash(first, [5, 6]) != block_hash(second, [5, 6])
    assert block_hash(root, [1, 2]) == first


def test_nobody_can_guess_a_hash_without_the_seed():
    assert root_hash(b"a") != root_hash(b"b")
    assert root_hash(b"a", "ann") != root_hash(b"a", "bob")
    assert BlockPool(2).seed != BlockPool(2).seed
    assert BlockPool(2, seed=7).seed == BlockPool(2, seed=7).seed


def test_a_hit_leaves_at_least_one_token_to_compute():
    memory = cache()
    assert board(memory, request("ann", range(8))) == []
    assert len(board(memory, request("bob", range(8)))) == 1
    assert len(board(memory, request("cyd", range(9)))) == 2


def test_hits_do_not_cross_salts():
    memory = cache()
    board(memory, request("ann", range(9), salt="ann"))
    assert memory.cached_prefix(request("bob", range(9), salt="bob")) == []
    assert len(memory.cached_prefix(request("eve", range(9), salt="ann"))) == 2


def test_a_hit_that_is_free_costs_a_free_block():
    memory = cache(num_blocks=4)
    ann = request("ann", range(9))
    board(memory, ann)
    memory.free(ann)
    prefix = memory.cached_prefix(request("bob", range(9)))
    assert len(prefix) == 2
    assert memory.blocks_short(9, prefix) <= 0
    assert memory.blocks_short(13, prefix) > 0
    assert memory.blocks_short(9, prefix, watermark=1) > 0


@given(st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=12), min_size=1, max_size=6))
def test_a_hit_is_a_true_prefix(prompts):
    memory = cache(num_blocks=60, block_size=2)
    holds: dict[int, tuple[int, ...]] = {}
    for place, prompt in enumerate(prompts):
        rider = request(str(place), prompt)
        prefix = board(memory, rider)
        for index, block in enumerate(prefix):
            assert holds[block] == tuple(prompt[: 2 * index + 2])
        for index, block in enumerate(rider.block_table[: len(prompt) // 2]):
            holds[block] = tuple(prompt[: 2 * index + 2])


# ----- growing and sharing -----


def test_a_table_grows_by_a_block_when_the_last_one_is_full():
    memory = cache(prefix_caching=False)
    ann = request("ann", range(4))
    board(memory, ann)
    assert ann.block_table == [1]
    assert memory.append(ann, 5) == []
    assert ann.block_table == [1, 2]


def test_a_fork_shares_and_copies_when_someone_writes():
    memory = cache(prefix_caching=False)
    ann, bob = request("ann", range(6)), request("bob", range(6))
    board(memory, ann)
    memory.fork(ann, bob, 5)
    assert bob.block_table == ann.block_table == [1, 2]
    (copy,) = memory.append(bob, 6)
    assert copy == (2, 3)
    assert (ann.block_table, bob.block_table) == ([1, 2], [1, 3])
    assert memory.append(ann, 7) == []
    memory.free(ann)
    memory.free(bob)
    assert memory.num_free == memory.capacity


def test_a_block_that_the_cache_may_hand_out_is_not_written_into():
    memory = cache()
    ann, bob = request("ann", range(8)), request("bob", range(8))
    board(memory, ann)
    memory.fork(ann, bob, 7)
    memory.free(ann)
    assert memory.append(bob, 8) == [(2, 3)]
    assert len(memory.cached_prefix(request("cyd", range(9)))) == 2


def test_allocate_that_does_not_fit_takes_nothing():
    memory = cache(num_blocks=4)
    ann = request("ann", range(9))
    board(memory, ann)
    memory.free(ann)
    prefix = memory.cached_prefix(request("bob", range(9)))
    with pytest.raises(CourseError):
        memory.allocate(request("bob", range(16)), 16, prefix)
    assert memory.num_free == memory.capacity


# ----- memory in one piece -----


def test_first_fit_leaves_holes_that_add_up_and_do_not_help():
    memory = ContiguousAllocator(10)
    for name, size in (("a", 3), ("b", 3), ("c", 3)):
        memory.allocate(name, size)
    memory.free("a")
    memory.free("c")
    assert (memory.num_free, memory.largest_hole) == (7, 4)
    with pytest.raises(CourseError, match="7 are free, 4 in one piece"):
        memory.allocate("d", 5)
    assert memory.allocate("e", 2) == 0
    memory.free("b")
    assert memory.holes == [(2, 8)]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 9)), max_size=40))
def test_contiguous_memory_is_conserved(moves):
    memory = ContiguousAllocator(30)
    for name, size in moves:
        if str(name) in memory.regions:
            memory.free(str(name))
        elif memory.can_allocate(size):
            memory.allocate(str(name), size)
        pieces = sorted([*memory.holes, *memory.regions.values()])
        assert pieces[0][0] == 0
        assert all(a + n == b for (a, n), (b, _) in itertools.pairwise(pieces))
        assert sum(pieces[-1]) == 30
        assert all(a + n < b for (a, n), (b, _) in zip(memory.holes, memory.holes[1:], strict=False))


@given(st.integers(1, 40), st.lists(st.tuples(st.integers(0, 5), st.integers(1, 9)), max_size=40))
def test_buddies_are_powers_of_two_and_come_together_again(size, moves):
    memory = BuddyAllocator(size)
    whole = list(memory.holes)
    for name, wanted in moves:
        if str(name) in memory.regions:
            memory.free(str(name))
        elif memory.can_allocate(wanted):
            memory.allocate(str(name), wanted)
            assert wanted <= memory.regions[str(name)][1] < 2 * wanted
        pieces = sorted([*memory.holes, *memory.regions.values()])
        assert pieces[0][0] == 0
        assert all(a + n == b for (a, n), (b, _) in itertools.pairwise(pieces))
        assert sum(pieces[-1]) == size
        assert all(n & (n - 1) == 0 and a % n == 0 for a, n in pieces)
    for name in list(memory.regions):
        memory.free(name)
    assert memory.holes == whole


def test_two_free_neighbors_that_are_no_buddies_do_not_merge():
    memory = BuddyAllocator(16)
    for name in "abcd":
        memory.allocate(name, 3)
    memory.free("b")
    memory.free("c")
    assert (memory.num_free, memory.largest_hole) == (8, 4)
    with pytest.raises(CourseError, match="8 are free, 4 in one piece"):
        memory.allocate("e", 5)


@pytest.mark.parametrize("allocator", [ContiguousAllocator, BuddyAllocator])
@pytest.mark.parametrize(
    "misuse", [lambda m: m.free("nobody"), lambda m: m.allocate("a", 1), lambda m: m.allocate("b", 0)]
)
def test_contiguous_misuse_is_named(misuse, allocator):
    memory = allocator(4)
    memory.allocate("a", 2)
    with pytest.raises(CourseError):
        misuse(memory)
    assert memory.regions == {"a": (0, 2)}


def test_shares_of_a_case_small_enough_to_count():
    """One prompt and two output tokens each, one at a time: 1 and then 2 of 3 tokens are stored."""
    workload = Workload.from_lengths([2, 2, 2], [1, 1, 1])
    oracle = memory_shares(workload, memory_tokens=3, max_model_len=3, block_size=1)[2]
    assert oracle.scheme == "contiguous oracle"
    shares = (oracle.tokens, oracle.reservation, oracle.internal, oracle.external, oracle.on_board)
    assert shares == pytest.approx((1.5 / 3, 0.5 / 3, 0, 1 / 3, 1))


def test_paging_wastes_little_and_reservation_most_on_the_azure_lengths():
    prompts, outputs = azure_prompts(1500), azure_lengths(1500)
    fits = prompts + outputs <= 4096
    workload = Workload.from_lengths(outputs[fits], prompts[fits])
    shares = {share.scheme: share for share in memory_shares(workload, 100_000, 4096)}
    for share in shares.values():
        assert share.tokens + share.reservation + share.internal + share.external == pytest.approx(1)
    assert 0.20 <= shares["contiguous max"].tokens <= 0.38
    assert (
        shares["contiguous max"].tokens
        < shares["contiguous pow2"].tokens
        < shares["contiguous oracle"].tokens
    )
    assert shares["paged 16"].tokens > 0.96
    for buddy in contiguous_shares(workload, 100_000, 4096, BuddyAllocator):
        assert buddy.tokens + buddy.reservation + buddy.internal + buddy.external == pytest.approx(1)
        assert buddy.tokens <= shares[buddy.scheme].tokens


@pytest.mark.parametrize(
    ("memory", "longest", "message"),
    [(2, None, "cannot hold"), (100, 2, "leave it out"), (100, None, "at once")],
)
def test_shares_of_what_cannot_be_compared(memory, longest, message):
    with pytest.raises(CourseError, match=message):
        memory_shares(Workload.from_lengths(np.array([3, 3])), memory, longest)


def test_regions_never_overlap_and_a_refusal_is_fragmentation():
    workload = Workload.from_lengths([9, 30, 7, 25, 12, 40, 8, 16], [5, 20, 9, 3, 30, 6, 14, 11])
    regions, refusals = contiguous_regions(workload, 96, reservations(96)["contiguous pow2"])
    assert [label for *_, label in regions] == [str(row) for row in range(len(workload))]
    for i, (first, end, start, length, _) in enumerate(regions):
        assert end - first == workload.output_tokens[i]
        assert 0 <= start <= 96 - length
        for other_first, other_end, other_start, other_length, _ in regions[:i]:
            together = first < other_end and other_first < end
            assert not (together and start < other_start + other_length and other_start < start + length)
    assert all(refusal.largest_hole < refusal.wanted <= refusal.free for refusal in refusals)
    assert refusals
