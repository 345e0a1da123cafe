"""Block tables: which blocks hold which positions of a request's K/V.

`can_allocate` / `allocate` when a request boards, `can_append` / `append` as it grows, `free` when it leaves.
"""

from __future__ import annotations

from collections.abc import Sequence

from lessonlib.scheduling.block_pool import BlockPool, block_hash, root_hash
from lessonlib.scheduling.request import RequestState

Copy = tuple[int, int]


class KVCache:
    """Paged K/V memory for many requests over one `BlockPool`.

    Args:
        pool: the blocks.
        prefix_caching: find blocks that already hold a request's first tokens.
    """

    def __init__(self, pool: BlockPool, prefix_caching: bool = False) -> None:
        self.pool, self.block_size, self.prefix_caching = pool, pool.block_size, prefix_caching
        self._roots: dict[str, bytes] = {}

    @property
    def num_blocks(self) -> int:
        """Blocks in the pool, the null block included."""
        return self.pool.num_blocks

    @property
    def capacity(self) -> int:
        """Blocks that requests can hold."""
        return self.pool.capacity

    @property
    def num_free(self) -> int:
        return self.pool.num_free

    def blocks_for(self, num_tokens: int) -> int:
        """Blocks that hold `num_tokens` tokens."""
        return -(-num_tokens // self.block_size)

    # ----- boarding -----

    def cached_prefix(self, request: RequestState) -> list[int]:
        """Blocks that already hold the request's first tokens, as many as there are in a row.

        At least one token is left to compute: without it there would be nothing to sample the next one from.
        """
        if not self.prefix_caching or request.token_ids is None:
            return []
        prefix = []
        for index in range((request.num_tokens - 1) // self.block_size):
            block = self.pool.lookup(self._hash(request, index))
            if block is None:
                break
            prefix.append(block)
        return prefix

    def can_allocate(self, num_tokens: int, prefix: Sequence[int] = (), watermark: int = 0) -> bool:
        """Whether `num_tokens` tokens fit and leave `watermark` blocks free.

        The first of them are in the blocks of `prefix`; those of its blocks that nobody holds are taken too.
        """
        revived = sum(self.pool.is_free(block) for block in prefix)
        wanted = self.blocks_for(num_tokens) - len(prefix) + revived
        return wanted <= self.pool.num_free - watermark

    def allocate(self, request: RequestState, num_tokens: int, prefix: Sequence[int] = ()) -> None:
        """Give the request a block table for `num_tokens` tokens, the first in the blocks of `prefix`.

        Raises `CourseError` where they do not fit; nothing is taken then.
        """
        self.pool.touch(prefix)  # first, so that the new blocks cannot be these
        try:
            fresh = self.pool.allocate(self.blocks_for(num_tokens) - len(prefix))
        except ValueError:
            self.pool.free(prefix)
            raise
        request.block_table = [*prefix, *fresh]
        request.num_registered_blocks = len(prefix)

    # ----- growing -----

    def has_room(self, request: RequestState, num_tokens: int) -> bool:
        """Whether the table holds `num_tokens` tokens as it is, so that there is nothing to append."""
        return num_tokens <= len(request.block_table) * self.block_size and not self._must_copy(request)

    def can_append(self, request: RequestState, num_tokens: int) -> bool:
        """Whether the request's table can grow to hold `num_tokens` tokens in all."""
        wanted = max(0, self.blocks_for(num_tokens) - len(request.block_table)) + self._must_copy(request)
        return wanted <= self.pool.num_free

    def append(self, request: RequestState, num_tokens: int) -> list[Copy]:
        """Grow the table to hold `num_tokens` tokens in all.

        Returns the (source, destination) blocks to copy before anything is written: where the block that is
        written next is shared, the request gets one of its own. Raises `CourseError` where the pool is too
        small.
        """
        copies = [self._copy_on_write(request)] if self._must_copy(request) else []
        wanted = self.blocks_for(num_tokens) - len(request.block_table)
        if wanted > 0:
            request.block_table += self.pool.allocate(wanted)
        return copies

    def _must_copy(self, request: RequestState) -> bool:
        """Whether the next write goes into a half-full block that somebody else holds or may be handed."""
        index, offset = divmod(request.num_computed_tokens, self.block_size)
        if not offset or index >= len(request.block_table):
            return False
        block = request.block_table[index]
        return self.pool.ref_counts[block] > 1 or self.pool.hashes[block] is not None

    def _copy_on_write(self, request: RequestState) -> Copy:
        index = request.num_computed_tokens // self.block_size
        source, (destination,) = request.block_table[index], self.pool.allocate(1)
        # A step in flight may still hold the old table: it gets a new list, not a changed one.
        request.block_table = [*request.block_table[:index], destination, *request.block_table[index + 1 :]]
        self.pool.free([source])
        return source, destination

    def fork(self, parent: RequestState, child: RequestState, num_tokens: int) -> None:
        """Let the child share the parent's first `num_tokens` tokens, and copy when one of them writes."""
        child.block_table = parent.block_table[: self.blocks_for(num_tokens)]
        child.block_hashes = parent.block_hashes[: num_tokens // self.block_size]
        child.num_registered_blocks = num_tokens // self.block_size
        child.num_computed_tokens = num_tokens
        self.pool.touch(child.block_table)

    # ----- remembering and leaving -----

    def commit(self, request: RequestState, num_computed: int) -> None:
        """Let others find the full blocks of the request's first `num_computed` tokens, now stored."""
        if not self.prefix_caching or request.token_ids is None:
            return
        for index in range(request.num_registered_blocks, num_computed // self.block_size):
            self.pool.register(request.block_table[index], self._hash(request, index))
            request.num_registered_blocks = index + 1

    def free(self, request: RequestState) -> None:
        """Let go of every block of the request."""
        self.pool.free(request.block_table)
        request.block_table = []
        request.num_registered_blocks = 0

    def _hash(self, request: RequestState, index: int) -> bytes:
        """The hash of the request's full block number `index`. Each is computed once."""
        hashes, size = request.block_hashes, self.block_size
        while len(hashes) <= index:
            parent = hashes[-1] if hashes else self._root(request.salt)
            start = len(hashes) * size
            assert request.token_ids is not None
            hashes.append(block_hash(parent, request.token_ids[start : start + size]))
        return hashes[index]

    def _root(self, salt: str) -> bytes:
        if salt not in self._roots:
            self._roots[salt] = root_hash(self.pool.seed, salt)
        return self._roots[salt]


class UnlimitedKVCache:
    """Memory that is no question: everything fits and nothing is counted."""

    num_blocks = block_size = capacity = num_free = 0
    prefix_caching = False

    def blocks_for(self, num_tokens: int) -> int:
        return 0

    def cached_prefix(self, request: RequestState) -> list[int]:
        return []

    def can_allocate(self, num_tokens: int, prefix: Sequence[int] = (), watermark: int = 0) -> bool:
        return True

    def allocate(self, request: RequestState, num_tokens: int, prefix: Sequence[int] = ()) -> None:
        """Nothing to give."""

    def has_room(self, request: RequestState, num_tokens: int) -> bool:
        return True

    def can_append(self, request: RequestState, num_tokens: int) -> bool:
        return True

    def append(self, request: RequestState, num_tokens: int) -> list[Copy]:
        return []

    def fork(self, parent: RequestState, child: RequestState, num_tokens: int) -> None:
        child.num_computed_tokens = num_tokens

    def commit(self, request: RequestState, num_computed: int) -> None:
        """Nothing to find."""

    def free(self, request: RequestState) -> None:
        """Nothing to let go of."""
