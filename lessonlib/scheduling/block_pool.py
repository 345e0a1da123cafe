"""K/V memory in blocks of one size: which blocks are held, which are free, which still keep a cached prefix.

The pool hands out block ids. The contents of the blocks are in the data plane.
"""

from __future__ import annotations

import hashlib
import secrets
from array import array
from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence

from lessonlib.errors import CourseError

NULL_BLOCK = 0


def check_block_size(block_size: int) -> int:
    """`block_size` itself, or a `CourseError` where a block would hold nothing."""
    if block_size < 1:
        raise CourseError(f"a block size of {block_size}: a block holds at least 1 token")
    return block_size


def root_hash(seed: bytes, salt: str = "") -> bytes:
    """The start of a chain of block hashes: 32 bytes that cannot be computed without the seed.

    Requests with different salts get different chains, so they share no blocks.
    """
    return hashlib.sha256(hashlib.sha256(seed).digest() + salt.encode()).digest()


def block_hash(parent: bytes, tokens: Sequence[int]) -> bytes:
    """The hash of a full block, which stands for all tokens up to its end: `parent` is that of the block before.

    K/V at a position depends on every token before it. So two blocks may be shared only if the whole prefix is
    the same, and the same tokens after another beginning must get another hash.

    Args:
        parent: the hash of the block before, or `root_hash` for the first.
        tokens: the ids in this block.
    """
    return hashlib.sha256(parent + array("q", tokens).tobytes()).digest()


class BlockPool:
    """Fixed-size K/V blocks with reference counts. Every operation takes constant time a block.

    Block 0 is the null block: it is never handed out, so padded rows of a block table can point to it. A free block
    keeps its contents and its hash until it is handed out again.

    The idea, and the order of the free queue, are vLLM's (Kwon et al., "PagedAttention", SOSP 2023; class
    `BlockPool` of vLLM V1).

    Args:
        num_blocks: blocks in memory, the null block included; at least 2.
        block_size: tokens a block.
        seed: makes the hashes unguessable; drawn at random by default.

    Attributes:
        ref_counts: per block, how many requests hold it.
        hashes: per block, the hash it can be found by; None for a block that is not shared. The contents of a block
            with a hash must not change.

    Raises:
        CourseError: for fewer than 2 blocks, or a block size below 1.
    """

    def __init__(self, num_blocks: int, block_size: int = 16, seed: bytes | int | None = None) -> None:
        if num_blocks < 2:
            raise CourseError(f"a pool of {num_blocks} blocks: block 0 is the null block, so give at least 2")
        self.num_blocks, self.block_size = num_blocks, check_block_size(block_size)
        self.seed = seed_bytes(seed)
        self.ref_counts = [0] * num_blocks
        self.hashes: list[bytes | None] = [None] * num_blocks
        self._cached: dict[bytes, dict[int, None]] = {}  # of each hash its blocks, the first one first
        # An OrderedDict is a linked list with an index: both ends and the middle are constant time.
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(range(1, num_blocks))

    @property
    def capacity(self) -> int:
        """Blocks that can be handed out at all."""
        return self.num_blocks - 1

    @property
    def num_free(self) -> int:
        """Blocks that no request holds, those that still keep a cached prefix included."""
        return len(self._free)

    def is_free(self, block: int) -> bool:
        """Whether no request holds the block."""
        return block in self._free

    def free_blocks(self) -> list[int]:
        """Ids of the free blocks, in the order they will be handed out. Takes time; for pictures and tests."""
        return list(self._free)

    def allocate(self, count: int) -> list[int]:
        """Ids of `count` blocks, each held once. A cached prefix in one of them is lost.

        Raises `CourseError` if fewer are free; then none is taken.
        """
        if count > self.num_free:
            raise CourseError(f"{count} blocks wanted, {self.num_free} free: ask `num_free` first")
        return [self._take_oldest() for _ in range(count)]

    def _take_oldest(self) -> int:
        block, _ = self._free.popitem(last=False)
        if (digest := self.hashes[block]) is not None:
            self.hashes[block], same = None, self._cached[digest]
            del same[block]
            if not same:
                del self._cached[digest]
        self.ref_counts[block] = 1
        return block

    def touch(self, blocks: Iterable[int]) -> None:
        """Hold each block once more. A free one leaves the free queue and keeps its contents."""
        for block in blocks:
            if self.ref_counts[block] == 0:
                del self._free[block]
            self.ref_counts[block] += 1

    def free(self, blocks: Sequence[int]) -> None:
        """Release each block once, the last one first.

        A block without a hash cannot be found again, so it is handed out next. A block with a hash goes to the end
        of the queue; the tail of a prefix goes before its head, so that the head is kept longest.

        Raises `CourseError` for a block that is not held as often as it is named; then none is freed.
        """
        for block, times in Counter(blocks).items():
            if not NULL_BLOCK < block < self.num_blocks or self.ref_counts[block] < times:
                raise CourseError(f"block {block} is freed more often than held: free a block table once")
        for block in reversed(blocks):
            self.ref_counts[block] -= 1
            if self.ref_counts[block] == 0:
                self._free[block] = None
                if self.hashes[block] is None:
                    self._free.move_to_end(block, last=False)

    def register(self, block: int, digest: bytes) -> None:
        """Let the prefix cache find this full block. A block that has a hash keeps it.

        Blocks with the same contents are not merged, since a block table changes only by growing at its end. Each is
        remembered, so that the contents are found as long as one of them has them.
        """
        if self.hashes[block] is None:
            self.hashes[block] = digest
            self._cached.setdefault(digest, {})[block] = None

    def lookup(self, digest: bytes) -> int | None:
        """The block with this hash, of several the one that was registered first; or None."""
        return next(iter(self._cached.get(digest, ())), None)


def seed_bytes(seed: bytes | int | None) -> bytes:
    """A seed as bytes; 32 random ones for None."""
    if seed is None:
        return secrets.token_bytes(32)
    return seed if isinstance(seed, bytes) else str(seed).encode()
