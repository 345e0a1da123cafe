"""Block tables: which blocks hold which positions of a request's K/V.

`blocks_short` and `allocate` at admission, `can_append` and `append` as the request grows, `free` at its end.
"""

from __future__ import annotations

from collections.abc import Sequence

from lessonlib.scheduling.block_pool import BlockPool, block_hash, root_hash
from lessonlib.scheduling.request import RequestState

Copy = tuple[int, int]
"""(source, destination) ids of a block to copy."""


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

    # ----- admission -----

    def cached_prefix(self, request: RequestState) -> list[int]:
        """Ids of the blocks that already hold the request's first tokens, without a gap from the start.

        At least one token is left to compute, since the next one is sampled from its result.
        """
        if not self.prefix_caching or request.token_ids is None:
            return []
        prefix = []
        for index in range((request.num_tokens - 1) // self.block_size):
            if (block := self.pool.lookup(self._hash(request, index))) is None:
                break
            prefix.append(block)
        return prefix

    def blocks_short(self, num_tokens: int, prefix: Sequence[int] = (), watermark: int = 0) -> int:
        """How many blocks are missing for `num_tokens` tokens and `watermark` free blocks; 0 or less if they fit.

        The first of them are in the blocks of `prefix`. Those of its blocks that are free now will be held too.
        """
        revived = sum(self.pool.is_free(block) for block in prefix)
        return self.blocks_for(num_tokens) - len(prefix) + revived + watermark - self.pool.num_free

    def allocate(self, request: RequestState, num_tokens: int, prefix: Sequence[int] = ()) -> None:
        """Give the request a block table for `num_tokens` tokens, the first in the blocks of `prefix`.

        Raises `CourseError` if they do not fit; then no block is taken.
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
        """Whether the table holds `num_tokens` tokens as it is, without an `append`."""
        return num_tokens <= len(request.block_table) * self.block_size and not self._must_copy(request)

    def can_append(self, request: RequestState, num_tokens: int) -> bool:
        """Whether the request's table can grow to hold `num_tokens` tokens in all."""
        needed = max(0, self.blocks_for(num_tokens) - len(request.block_table)) + self._must_copy(request)
        return needed <= self.pool.num_free

    def append(self, request: RequestState, num_tokens: int) -> list[Copy]:
        """Grow the table to hold `num_tokens` tokens in all.

        Returns:
            The blocks to copy before anything is written: if the block to be written next is shared, the request
            gets a copy of its own.

        Raises:
            CourseError: if the pool is too small.
        """
        copies = [self._copy_on_write(request)] if self._must_copy(request) else []
        needed = self.blocks_for(num_tokens) - len(request.block_table)
        if needed > 0:
            request.block_table += self.pool.allocate(needed)
        return copies

    def _must_copy(self, request: RequestState) -> bool:
        """Whether the next write goes into a half-full block that another request holds, or may find by its hash."""
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
        """Let the child share the blocks of the parent's first `num_tokens` tokens. The first to write copies."""
        child.block_table = parent.block_table[: self.blocks_for(num_tokens)]
        child.block_hashes = parent.block_hashes[: num_tokens // self.block_size]
        child.num_registered_blocks = num_tokens // self.block_size
        child.num_computed_tokens = num_tokens
        self.pool.touch(child.block_table)

    # ----- registering and releasing -----

    def commit(self, request: RequestState, num_computed: int) -> None:
        """Register the full blocks of the request's first `num_computed` tokens with the prefix cache.

        Called when their K/V is stored.
        """
        if not self.prefix_caching or request.token_ids is None:
            return
        for index in range(request.num_registered_blocks, num_computed // self.block_size):
            self.pool.register(request.block_table[index], self._hash(request, index))
            request.num_registered_blocks = index + 1

    def free(self, request: RequestState) -> None:
        """Release every block of the request."""
        self.pool.free(request.block_table)
        request.block_table = []
        request.num_registered_blocks = 0

    def _hash(self, request: RequestState, index: int) -> bytes:
        """The hash of the request's full block number `index`, computed once."""
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
    """Memory without limit: everything fits and no blocks are counted."""

    num_blocks = block_size = capacity = num_free = 0
    prefix_caching = False

    def blocks_for(self, num_tokens: int) -> int:
        return 0

    def cached_prefix(self, request: RequestState) -> list[int]:
        return []

    def blocks_short(self, num_tokens: int, prefix: Sequence[int] = (), watermark: int = 0) -> int:
        return 0

    def allocate(self, request: RequestState, num_tokens: int, prefix: Sequence[int] = ()) -> None:
        """Does nothing: there are no blocks."""

    def has_room(self, request: RequestState, num_tokens: int) -> bool:
        return True

    def can_append(self, request: RequestState, num_tokens: int) -> bool:
        return True

    def append(self, request: RequestState, num_tokens: int) -> list[Copy]:
        return []

    def fork(self, parent: RequestState, child: RequestState, num_tokens: int) -> None:
        child.num_computed_tokens = num_tokens

    def commit(self, request: RequestState, num_computed: int) -> None:
        """Does nothing: there is no prefix cache."""

    def free(self, request: RequestState) -> None:
        """Does nothing: there are no blocks."""
