"""K/V memory in one region a request, as before paging, and how much of it is used.

A request needs a region for all the tokens it may ever store. Memory without tokens is of three kinds, named in
Kwon et al., "PagedAttention", SOSP 2023, section 3.1: *reservation* (set aside, to be used later), *internal
fragmentation* (set aside, never used) and *external fragmentation* (free, but in holes too small).
"""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np

from lessonlib.errors import CourseError
from lessonlib.metrics import kv_tokens
from lessonlib.scheduling.policies import make_policy
from lessonlib.simulation.simulator import simulate
from lessonlib.workload import Workload

Hole = tuple[int, int]
"""(start, length) of a piece of memory, in tokens."""


class ContiguousAllocator:
    """First fit: a request gets the first hole that is large enough.

    Args:
        size: tokens of memory, at least 1.

    Attributes:
        holes: (start, length) of each free piece, by start; neighbors are merged.
        regions: (start, length) held by each request.
    """

    def __init__(self, size: int) -> None:
        if size < 1:
            raise CourseError(f"a memory of {size} tokens: give at least 1")
        self.size = size
        self.holes: list[Hole] = [(0, size)]
        self.regions: dict[str, Hole] = {}

    @property
    def num_free(self) -> int:
        """Free tokens, in all holes together."""
        return sum(length for _, length in self.holes)

    @property
    def largest_hole(self) -> int:
        """The longest request that would fit, in tokens."""
        return max((length for _, length in self.holes), default=0)

    def can_allocate(self, num_tokens: int) -> bool:
        return num_tokens <= self.largest_hole

    def allocate(self, request_id: str, num_tokens: int) -> int:
        """Reserve `num_tokens` tokens in one region; returns its first token.

        Raises `CourseError` if no hole is large enough, or the request already has a region.
        """
        self._check_new(request_id, num_tokens)
        for index, (start, length) in enumerate(self.holes):
            if length >= num_tokens:
                rest = [(start + num_tokens, length - num_tokens)] if length > num_tokens else []
                self.holes[index : index + 1] = rest
                self.regions[request_id] = (start, num_tokens)
                return start
        raise self._too_long(num_tokens)

    def free(self, request_id: str) -> None:
        """Free a request's region. Raises `CourseError` for a request without one."""
        start, length = self._release(request_id)
        index = bisect_left(self.holes, (start, 0))
        if index < len(self.holes) and self.holes[index][0] == start + length:
            length += self.holes.pop(index)[1]
        if index and sum(self.holes[index - 1]) == start:
            index -= 1
            start, before = self.holes.pop(index)
            length += before
        self.holes.insert(index, (start, length))

    def _check_new(self, request_id: str, num_tokens: int) -> None:
        if request_id in self.regions:
            raise CourseError(f"request {request_id!r} already has a region: free it first")
        if num_tokens < 1:
            raise CourseError(f"a region of {num_tokens} tokens: reserve at least 1")

    def _release(self, request_id: str) -> Hole:
        if request_id not in self.regions:
            raise CourseError(f"request {request_id!r} has no region: free it once")
        return self.regions.pop(request_id)

    def _too_long(self, num_tokens: int) -> CourseError:
        return CourseError(
            f"no hole for {num_tokens} tokens: {self.num_free} are free, {self.largest_hole} in one piece"
        )


class BuddyAllocator(ContiguousAllocator):
    """Buddy allocation (Knowlton, 1965): every piece is a power of two, and a request gets the next larger one.

    A piece that is too large is halved until it fits. A piece that is freed merges with its other half, if that one
    is free, and with nothing else. Kwon et al., SOSP 2023, section 6.1, assume it for Orca.

    Args:
        size: tokens of memory, at least 1; it is first cut into powers of two, the largest in front.

    Attributes:
        holes: (start, length) of each free piece, by start.
        regions: (start, length) held by each request, `length` being the power of two.
    """

    def __init__(self, size: int) -> None:
        super().__init__(size)
        bits = [1 << bit for bit in reversed(range(size.bit_length())) if size >> bit & 1]
        self.holes = [(sum(bits[:index]), length) for index, length in enumerate(bits)]

    def can_allocate(self, num_tokens: int) -> bool:
        return power_of_two(num_tokens) <= self.largest_hole

    def allocate(self, request_id: str, num_tokens: int) -> int:
        """Reserve the power of two that holds `num_tokens`; returns its first token.

        Raises `CourseError` if no piece is large enough, or the request already has one.
        """
        self._check_new(request_id, num_tokens)
        wanted = power_of_two(num_tokens)
        if wanted > self.largest_hole:
            raise self._too_long(num_tokens)
        start, length = min((hole for hole in self.holes if hole[1] >= wanted), key=lambda hole: hole[::-1])
        self.holes.remove((start, length))
        while length > wanted:
            length //= 2
            self.holes.append((start + length, length))
        self.holes.sort()
        self.regions[request_id] = (start, wanted)
        return start

    def free(self, request_id: str) -> None:
        """Free a request's piece. Raises `CourseError` for a request without one."""
        start, length = self._release(request_id)
        while (start ^ length, length) in self.holes:
            self.holes.remove((start ^ length, length))
            start, length = start & ~length, 2 * length
        self.holes.append((start, length))
        self.holes.sort()


def power_of_two(number: int) -> int:
    """The smallest power of two that is at least `number`."""
    return 1 << (number - 1).bit_length()


@dataclass(frozen=True)
class MemoryShares:
    """Shares of the memory, averaged over the steps in which a request waits for it. They add up to 1.

    Attributes:
        scheme: how memory was set aside.
        tokens: the share that holds tokens.
        reservation: the share set aside to be used later.
        internal: the share set aside and never used.
        external: the share that is free while a request waits that does not fit.
        on_board: the mean number of requests in memory.
    """

    scheme: str
    tokens: float
    reservation: float
    internal: float
    external: float
    on_board: float

    def row(self) -> dict[str, str | float]:
        """As plain numbers, for a table."""
        return asdict(self)


Reserve = Callable[[int, int], int]


def reservations(max_model_len: int) -> dict[str, Reserve]:
    """Scheme -> the tokens it sets aside for a request of (prompt, output) tokens.

    The names are those of Kwon et al., SOSP 2023. "max": the model's longest sequence. "pow2": the output's
    length rounded up to a power of two. "oracle": exactly the tokens that will be stored, which cannot be known
    beforehand; the last output token is never stored.
    """
    return {
        "contiguous max": lambda prompt, output: max_model_len,
        "contiguous pow2": lambda prompt, output: min(max_model_len, prompt + power_of_two(output)),
        "contiguous oracle": lambda prompt, output: prompt + output - 1,
    }


def memory_shares(
    workload: Workload, memory_tokens: int, max_model_len: int | None = None, block_size: int = 16
) -> list[MemoryShares]:
    """The shares of the memory under each scheme, on one workload: `contiguous_shares`, then `paged_shares`.

    All requests wait from the start, in order; a step gives each running one a token, and prompts are stored at
    once. Steps after the last request was admitted are left out: memory is not wasted if no request waits for it.

    Args:
        workload: the requests; arrivals are ignored.
        memory_tokens: K/V memory, in tokens.
        max_model_len: longest sequence the model takes; by default the longest request.
        block_size: tokens a block, of the paged scheme.

    Raises:
        CourseError: if a request does not fit in memory or in `max_model_len`, or no request ever waits.
    """
    shares = contiguous_shares(workload, memory_tokens, max_model_len)
    return [*shares, paged_shares(workload, memory_tokens, block_size)]


def contiguous_shares(
    workload: Workload,
    memory_tokens: int,
    max_model_len: int | None = None,
    allocator: type[ContiguousAllocator] = ContiguousAllocator,
) -> list[MemoryShares]:
    """`memory_shares` of the schemes that hold a request in one piece, found by first fit or by another allocator."""
    longest = int((workload.prompt_tokens + workload.output_tokens).max())
    max_model_len = max_model_len or longest
    if longest > max_model_len:
        raise CourseError(f"a request of {longest} tokens, but the model takes {max_model_len}: leave it out")
    if memory_tokens < max_model_len:
        raise CourseError(
            f"a memory of {memory_tokens} tokens cannot hold one sequence of {max_model_len}: give more"
        )
    return [
        _shares_in_one_piece(scheme, workload, allocator(memory_tokens), reserve)
        for scheme, reserve in reservations(max_model_len).items()
    ]


Region = tuple[int, int, int, int, str]
"""(first step, step after the last, start, length, label) of the memory that a request held."""


@dataclass(frozen=True)
class Refusal:
    """A request that waited although enough tokens were free, because each hole was too small.

    Attributes:
        step: when it began to wait.
        wanted, free: tokens.
        largest_hole: tokens in the largest hole.
    """

    step: int
    wanted: int
    free: int
    largest_hole: int


def contiguous_regions(workload: Workload, size: int, reserve: Reserve) -> tuple[list[Region], list[Refusal]]:
    """Which request held which region of the memory at which steps: first come, first served, prompts stored at once.

    Args:
        workload: the requests; arrivals are ignored.
        size: tokens of memory.
        reserve: gives the tokens to set aside for (prompt, output), such as one of `reservations`.

    Returns:
        The regions in order of admission, and a refusal for each request that fragmentation kept waiting.
    """
    memory, now = ContiguousAllocator(size), 0
    leaving: list[tuple[int, int]] = []
    regions, refusals = list[Region](), list[Refusal]()
    prompts, outputs = workload.prompt_tokens.tolist(), workload.output_tokens.tolist()
    for row, (prompt, output) in enumerate(zip(prompts, outputs, strict=True)):
        wanted, refused = reserve(prompt, output), False
        while not memory.can_allocate(wanted):
            if memory.num_free >= wanted and not refused:
                refusals.append(Refusal(now, wanted, memory.num_free, memory.largest_hole))
                refused = True
            now, gone = heapq.heappop(leaving)
            memory.free(str(gone))
        regions.append((now, now + output, memory.allocate(str(row), wanted), wanted, str(row)))
        heapq.heappush(leaving, (now + output, row))
    return regions, refusals


@dataclass
class _Ledger:
    """Sums over steps, advanced from one finished request to the next: in between, each request just grows."""

    stored: int = 0  # tokens of K/V that the running requests have
    final: int = 0  # and that they will have in their last step
    reserved: int = 0
    on_board: int = 0
    steps: int = 0
    sums: tuple[int, ...] = (0, 0, 0, 0)

    def admit(self, prompt: int, output: int, reserved: int) -> None:
        self.stored += prompt
        self._count(prompt + output - 1, reserved, 1)

    def finish(self, prompt: int, output: int, reserved: int) -> None:
        self.stored -= prompt + output
        self._count(prompt + output - 1, reserved, -1)

    def _count(self, final: int, reserved: int, sign: int) -> None:
        self.final += sign * final
        self.reserved += sign * reserved
        self.on_board += sign

    def advance(self, steps: int) -> None:
        """Let `steps` steps pass: one more token each is stored by the next."""
        stored = steps * self.stored + self.on_board * steps * (steps - 1) // 2
        counts = (stored, steps * self.final, steps * self.reserved, steps * self.on_board)
        self.sums = tuple(old + new for old, new in zip(self.sums, counts, strict=True))
        self.stored += self.on_board * steps
        self.steps += steps


def _shares_in_one_piece(
    scheme: str, workload: Workload, memory: ContiguousAllocator, reserve: Reserve
) -> MemoryShares:
    ledger, now = _Ledger(), 0
    leaving: list[tuple[int, int, int, int]] = []
    prompts, outputs = workload.prompt_tokens.tolist(), workload.output_tokens.tolist()
    for row, (prompt, output) in enumerate(zip(prompts, outputs, strict=True)):
        wanted = reserve(prompt, output)
        while not memory.can_allocate(wanted):
            leaves, gone, its_prompt, its_output = heapq.heappop(leaving)
            ledger.advance(leaves - now)
            now = leaves
            ledger.finish(its_prompt, its_output, memory.regions[str(gone)][1])
            memory.free(str(gone))
        memory.allocate(str(row), wanted)
        ledger.admit(prompt, output, memory.regions[str(row)][1])
        heapq.heappush(leaving, (now + output, row, prompt, output))
    return _shares_of(scheme, ledger, memory.size)


def _shares_of(scheme: str, ledger: _Ledger, size: int) -> MemoryShares:
    if not ledger.steps:
        raise CourseError(
            f"{scheme}: all requests fit at once, so that none waits: give less memory or more requests"
        )
    stored, final, reserved, on_board = (total / ledger.steps for total in ledger.sums)
    return MemoryShares(
        scheme,
        tokens=stored / size,
        reservation=(final - stored) / size,
        internal=(reserved - final) / size,
        external=(size - reserved) / size,
        on_board=on_board,
    )


def paged_shares(workload: Workload, memory_tokens: int, block_size: int = 16) -> MemoryShares:
    """The same by the Scheduler itself: blocks as needed, and the last request preempted when they run short."""
    blocks = memory_tokens // block_size
    trace = simulate(
        workload.with_arrivals(np.zeros(len(workload))),
        make_policy("max-utilization"),
        slots=len(workload),
        num_blocks=blocks + 1,
        block_size=block_size,
        free_prefill=True,
    )
    contended = trace.steps["waiting"] > 0
    if not contended.any():
        raise CourseError(
            "paged: all requests fit at once, so that none waits: give less memory or more requests"
        )
    held = (blocks - trace.steps["free_blocks"][contended]).mean() * block_size / memory_tokens
    tokens = kv_tokens(trace)[contended].mean() / memory_tokens
    on_board = float(trace.steps["running"][contended].mean())
    return MemoryShares(
        f"paged {block_size}", float(tokens), 0.0, float(held - tokens), float(1 - held), on_board
    )
