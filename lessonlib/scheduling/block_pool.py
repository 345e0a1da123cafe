"""K/V memory in blocks of one size: who holds which, which are free, which still hold a prefix worth finding.

The pool hands out numbers. What lies in the blocks is the data plane's business.
"""

from __future__ import annotations

import hashlib
import secrets
from array import array
from collections import OrderedDict
from collections.abc import Iterable, Sequence

from lessonlib.errors import CourseError

NULL_BLOCK = 0


def check_block_size(block_size: int) -> int:
    """`block_size` itself, or a `CourseError` where a block would hold nothing."""
    if block_size < 1:
        raise CourseError(f"a block size of {block_size}: a block holds at least 1 token")
    return block_size


def root_hash(seed: bytes, salt: str = "") -> bytes:
    """Where a chain of block hashes starts: 32 bytes that nobody without the seed can compute."""
    return hashlib.sha256(hashlib.sha256(seed).digest() + salt.encode()).digest()


def block_hash(parent: bytes, tokens: Sequence[int]) -> bytes:
    """The hash of a full block: of all tokens up to its end, since its parent's is the hash of all before.

    K/V at a position depends on every token before it; so two blocks may be shared only where the whole
    prefix agrees, and the same words behind another beginning must get another hash.
    """
    return hashlib.sha256(parent + array("q", tokens).tobytes()).digest()


class BlockPool:
    """Fixed-size K/V blocks with reference counts. Every operation takes constant time a block.

    Block 0 is the null block: it is never handed out, so that padded rows of a block table have somewhere
    harmless to point. A free block keeps its contents and its hash until it is handed out again.

    The idea, and the order of the free queue, are vLLM's (Kwon et al., "PagedAttention", SOSP 2023; class
    `BlockPool` of vLLM V1).

    Args:
        num_blocks: blocks in memory, the null block included; at least 2.
        block_size: tokens a block.
        seed: makes the hashes unguessable; drawn at random unless given.

    Attributes:
        ref_counts: per block, how many requests hold it.
        hashes: per block, what it can be found by; None where its contents are nobody else's business. The
            contents of a block with a hash must stay as they are.
    """

    def __init__(self, num_blocks: int, block_size: int = 16, seed: bytes | int | None = None) -> None:
        if num_blocks < 2:
            raise CourseError(f"a pool of {num_blocks} blocks: block 0 is the null block, so give at least 2")
        self.num_blocks, self.block_size = num_blocks, check_block_size(block_size)
        self.seed = seed_bytes(seed)
        self.ref_counts = [0] * num_blocks
        self.hashes: list[bytes | None] = [None] * num_blocks
        self._cached: dict[bytes, int] = {}
        # An OrderedDict is a linked list with an index: both ends and the middle are constant time.
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(range(1, num_blocks))

    @property
    def capacity(self) -> int:
        """Blocks that can be handed out at all."""
        return self.num_blocks - 1

    @property
    def num_free(self) -> int:
        """Blocks nobody holds, those that still keep a cached prefix included."""
        return len(self._free)

    def is_free(self, block: int) -> bool:
        """Whether nobody holds the block."""
        return block in self._free

    def free_blocks(self) -> list[int]:
        """The free blocks, next to be handed out first. For pictures and tests: it takes time."""
        return list(self._free)

    def allocate(self, count: int) -> list[int]:
        """`count` blocks, each held once. A prefix that one of them kept is forgotten now, and not before.

        Raises `CourseError` where fewer are free; nothing is taken then.
        """
        if count > self.num_free:
            raise CourseError(f"{count} blocks wanted, {self.num_free} free: ask `num_free` first")
        return [self._take_oldest() for _ in range(count)]

    def _take_oldest(self) -> int:
        block, _ = self._free.popitem(last=False)
        if (digest := self.hashes[block]) is not None:
            del self._cached[digest]
            self.hashes[block] = None
        self.ref_counts[block] = 1
        return block

    def touch(self, blocks: Iterable[int]) -> None:
        """Hold each block once more; one that was free is taken out of the free queue with its contents."""
        for block in blocks:
            if self.ref_counts[block] == 0:
                del self._free[block]
            self.ref_counts[block] += 1

    def free(self, blocks: Sequence[int]) -> None:
        """Let go of each block once, the last one first.

        A block without a hash is of no use to anyone and is handed out next. One with a hash goes to the end
        of the queue; since the tail of a prefix goes before its head, the head survives longest.

        Raises `CourseError` for a block that nobody holds; nothing is freed then.
        """
        for block in blocks:
            if block == NULL_BLOCK or self.ref_counts[block] < 1:
                raise CourseError(f"block {block} is not held by anyone: free a block table once")
        for block in reversed(blocks):
            self.ref_counts[block] -= 1
            if self.ref_counts[block] == 0:
                self._free[block] = None
                if self.hashes[block] is None:
                    self._free.move_to_end(block, last=False)

    def register(self, block: int, digest: bytes) -> None:
        """Let the prefix cache find this full block. The first block with a hash keeps it.

        Two blocks with the same contents are not merged: a block table only ever grows at its end.
        """
        if self.hashes[block] is None and digest not in self._cached:
            self.hashes[block] = digest
            self._cached[digest] = block

    def lookup(self, digest: bytes) -> int | None:
        """The block with this hash, or None."""
        return self._cached.get(digest)


def seed_bytes(seed: bytes | int | None) -> bytes:
    """A seed as bytes; 32 random ones for None."""
    if seed is None:
        return secrets.token_bytes(32)
    return seed if isinstance(seed, bytes) else str(seed).encode()
