"""ex04.5: paged attention for decode, in Triton.

The batch is drawn from a seed on both sides: in the child, where the student's kernel meets it, and here, where the
expected answer comes from plain PyTorch in float64. A GPU also takes the time, beside the course's kernel.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np

from lessonlib.checks.spec import CannotRun, ChangedInput, Given, Speed, Task, WrongForm, kind, promise

SHARE = 0.5  # of the speed of the course's kernel
BLOCK_SIZE = 16
ROWS = 16  # the least that a tile of `tl.dot` has
ONE_HEAD, LARGE_SCALE = (1, 1), 20.0
EVEN_SCALE, HEAVY = (
    0.001,
    200.0,
)  # all tokens weigh the same, and 400 values of 200 are more than float16 holds
FAR = (1 << 31) // (BLOCK_SIZE * 8 * 128)  # the first block of 8 K/V heads of 128 beyond 2**31 numbers
ERROR = {"float32": 0.01, "float16": 0.01, "bfloat16": 0.03}  # ‖answer - expected‖ / ‖expected‖ of one row
SHOWN = 6  # numbers of a row


# ----- inputs -----


def _batch(
    rng: Random,
    lengths: list[int],
    heads: tuple[int, int] = ONE_HEAD,
    head_dim: int = 64,
    dtype: str = "float32",
    scale: float | None = None,
    first_block: int = 0,
    shift: float = 0.0,
) -> Given:
    """The fields of the harness's `Batch`."""
    return {
        "lengths": lengths,
        "heads": heads,
        "head_dim": head_dim,
        "dtype": dtype,
        "scale": head_dim**-0.5 if scale is None else scale,
        "seed": rng.randrange(10_000),
        "first_block": first_block,
        "shift": shift,
    }


def _batches(rng: Random) -> Iterator[Given]:
    """One head and one block; more blocks; more sequences; more heads; other dtypes, head sizes and caches."""
    for lengths in ([1], [16], [7], [17], [48], [0]):
        yield _batch(rng, lengths)
    # Sixteen rows: in one of them at least the largest score comes late, whatever the tile.
    yield _batch(rng, [rng.randint(280, 320)], (16, 1))
    for lengths in ([20, 3], [21, 0, 1, 40]):
        yield _batch(rng, lengths)
    yield _batch(rng, [45], dtype="float16", scale=LARGE_SCALE)
    yield _batch(rng, [400], dtype="float16", scale=EVEN_SCALE, shift=HEAVY)
    for heads in ((2, 2), (6, 2), (8, 2), (17, 1), (40, 2)):
        yield _batch(rng, [rng.randint(1, 40) for _ in range(2)], heads)
    yield _batch(rng, [33, 0, 16, 9], (4, 2), 128, "float16")
    yield _batch(rng, [rng.randint(0, 70) for _ in range(5)], (4, 1), 128)
    yield _batch(rng, [20, 3], (8, 8), 128, "float16", first_block=FAR)


def _batches_on_gpu(rng: Random) -> Iterator[Given]:
    """Contexts of a server, and bfloat16."""
    for head_dim, dtype in ((64, "bfloat16"), (128, "bfloat16"), (128, "float16")):
        yield _batch(rng, [rng.randint(900, 2500), 0, rng.randint(1, 64)], (32, 8), head_dim, dtype)
    yield _batch(rng, [rng.randint(0, 300) for _ in range(9)], (8, 1), 128, "bfloat16")


def _smaller(given: Given) -> Iterator[Given]:
    """One sequence less, one head, or a sequence shorter; what may overflow is kept."""
    may_overflow = given["scale"] == LARGE_SCALE or given["shift"]
    lengths = [] if may_overflow else given["lengths"]
    if len(lengths) > 1:
        for index in range(len(lengths)):
            yield {**given, "lengths": lengths[:index] + lengths[index + 1 :]}
    if given["heads"] != ONE_HEAD and not given["first_block"]:
        yield {**given, "heads": ONE_HEAD}
    for index, length in enumerate(lengths):
        for shorter in sorted({min(length, size) for size in (1, 16, 17, length // 2)} - {0, length}):
            yield {**given, "lengths": [*lengths[:index], shorter, *lengths[index + 1 :]]}


# ----- answers -----


class Attended(NamedTuple):
    """What came of a call: the rows, float64 [sequences, heads, head_dim], and whether kernels wrote them."""

    out: np.ndarray
    by_kernel: bool


def _expected(**given: Any) -> Attended:
    """The blocks' ids change nothing."""
    import torch

    from kernels.batches import make_batch, truth

    seqs = [(1, length) for length in given["lengths"]]
    dtype = getattr(torch, given["dtype"])
    batch = make_batch(seqs, given["heads"], given["head_dim"], dtype=dtype, seed=given["seed"])
    batch["value_cache"] += given["shift"]
    return Attended(truth(batch | {"scale": given["scale"]}).numpy(), True)


def _read(answer: Any, given: Given) -> Attended:
    if isinstance(answer, dict) and answer.keys() == {"cannot"}:
        raise CannotRun(str(answer["cannot"]))
    if not isinstance(answer, dict) or answer.keys() != {"out", "changed", "by_kernel"}:
        raise WrongForm(f"The answer should be in out; what came back is {kind(answer)}.")
    if answer["changed"]:
        names = " and ".join(answer["changed"])
        raise ChangedInput(f"It changed {names}, which an engine needs again: only out is to be written.")
    nothing_to_do = not any(given["lengths"])
    return Attended(np.asarray(answer["out"]), bool(answer["by_kernel"]) or nothing_to_do)


def _rows_close(answer: np.ndarray, expected: np.ndarray, dtype: str) -> bool:
    """Whether each row of the last dimension is right to rounding."""
    apart = np.linalg.norm(answer - expected, axis=-1)
    return bool((apart <= ERROR[dtype] * np.linalg.norm(expected, axis=-1)).all())


@promise("a Triton kernel computes the answer")
def _by_kernel(given: Given, answer: Attended, expected: Attended) -> bool:
    return answer.by_kernel == expected.by_kernel


@promise("a sequence of length 0 gets zeros")
def _empty_gets_zeros(given: Given, answer: Attended, expected: Attended) -> bool:
    return not answer.out[np.array(given["lengths"]) == 0].any()


@promise("large scores do not overflow")
def _no_overflow(given: Given, answer: Attended, expected: Attended) -> bool:
    return given["scale"] != LARGE_SCALE or bool(np.isfinite(answer.out).all())


@promise("sums have room for more than float16 holds")
def _room_for_sums(given: Given, answer: Attended, expected: Attended) -> bool:
    return not given["shift"] or _right.holds(given, answer, expected)


@promise("a block far into a large cache is found")
def _far_block(given: Given, answer: Attended, expected: Attended) -> bool:
    return not given["first_block"] or _right.holds(given, answer, expected)


@promise("nothing that is not the sequence's own comes through")
def _own_only(given: Given, answer: Attended, expected: Attended) -> bool:
    return bool(np.isfinite(answer.out).all())


@promise("within one block: the mean of the values, weighed by exp(scale · query · key)")
def _one_block(given: Given, answer: Attended, expected: Attended) -> bool:
    return (
        len(given["lengths"]) > 1
        or given["lengths"][0] > BLOCK_SIZE
        or _later_blocks.holds(given, answer, expected)
    )


@promise("a later block is folded into what was seen before")
def _later_blocks(given: Given, answer: Attended, expected: Attended) -> bool:
    return len(given["lengths"]) > 1 or _own_line.holds(given, answer, expected)


@promise("each sequence goes by its own length and its own line of the table")
def _own_line(given: Given, answer: Attended, expected: Attended) -> bool:
    return given["heads"][1] > 1 or given["heads"][0] > ROWS or _right.holds(given, answer, expected)


@promise("each query head meets the K/V head of its group")
def _right(given: Given, answer: Attended, expected: Attended) -> bool:
    return _rows_close(answer.out, expected.out, given["dtype"])


def _shown(answer: Attended, expected: Attended) -> tuple[str, str]:
    """How the row begins that is furthest from the expected one; or that no kernel had a part in it."""
    if answer.by_kernel != expected.by_kernel:
        return "the same rows where no kernel is launched", "rows that a Triton kernel writes"
    apart = np.nan_to_num(np.linalg.norm(answer.out - expected.out, axis=-1), nan=np.inf)
    seq, head = np.unravel_index(apart.argmax(), apart.shape)
    begins = (
        ", ".join(f"{number:.4f}" for number in each.out[seq, head, :SHOWN]) for each in (answer, expected)
    )
    came, was = (f"out[{seq}, {head}] = [{numbers}, …]" for numbers in begins)
    return came, was


# ----- speed -----


def _rows_agree(answer: np.ndarray, reference: np.ndarray) -> bool:
    return _rows_close(answer, reference, "bfloat16")


def _server(lengths: list[int]) -> Given:
    """32 query heads and 8 K/V heads of 128, as in Llama-3-8B: keys and values are many times the GPU's cache."""
    return _batch(Random(0), lengths, (32, 8), 128, "bfloat16")


SPEED = Speed(
    property=f"on a GPU: at least {SHARE:.0%} of the speed of the course's kernel in the same run",
    share=SHARE,
    cases={
        "128 sequences of 4,096 tokens": _server([4096] * 128),
        "128 sequences of 256 to 4,096 tokens": _server(
            [Random(each).randint(256, 4096) for each in range(128)]
        ),
    },
    reference=Path(__file__).with_name("kernel_reference.py"),
    packages=("kernels",),
    close=_rows_agree,
)


DECODE = Task(
    id="ex04.5",
    title="a decode kernel in Triton",
    function="decode_attention",
    cases=_batches,
    smaller=_smaller,
    expected=_expected,
    read=_read,
    properties=(
        _by_kernel,
        _empty_gets_zeros,
        _no_overflow,
        _room_for_sums,
        _far_block,
        _own_only,
        _one_block,
        _later_blocks,
        _own_line,
        _right,
    ),
    shown=_shown,
    through="attend",
    cases_on_gpu=_batches_on_gpu,
    speed=SPEED,
    hints=(
        "Begin with one program for each sequence and K/V head, and one loop over tiles of tokens. It is ex04.1 "
        "to ex04.3 with `tl` in front.",
        "A token's block is tl.load(block_table + seq * max_blocks + token // BLOCK_SIZE), masked by token < "
        "length and brought to int64. Its key begins at ((block * BLOCK_SIZE + token % BLOCK_SIZE) * kv_heads + "
        "kv_head) * DIM. Mask values as well as keys, with other=0.0.",
        "Per tile: scores = where(seen, tl.dot(q, k.T) * scale, -inf); new_best = maximum(best, max(scores, 1)); "
        "weights = exp2(scores - new_best[:, None]) with log2(e) counted into scale; shrink total and acc by "
        "exp2(best - new_best). After the loop divide by total, by 1 where it is 0. Rows beyond the group are "
        "masked in load and store; a tile of rows has at least 16.",
    ),
)
