"""Matrix products in bfloat16 on Intel's AMX units: one loop, compiled by Numba, for steps of any size.

A step with few rows reads all weights for them, so memory sets the pace, and beside it what a call costs. Here a matrix
lies in the order in which it is read, each thread asks for it some KiB ahead, and a call costs as much as waking
threads: OpenMP's, which PyTorch uses as well, so that no two sets of threads fight over the cores.

A tile register holds 16 rows of 64 bytes; one instruction adds the product of two of them to a third. Two by two tiles
of sums, and weights whose input features lie in pairs, are as in Intel's 64 and IA-32 Architectures Optimization
Reference Manual, in its chapter on AMX.
"""

from __future__ import annotations

import ctypes
import math
import sys
from dataclasses import dataclass
from functools import cache
from inspect import Parameter, Signature
from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import carray, cfunc, njit, types
from numba.core import cgutils
from numba.core.registry import cpu_target
from numba.extending import intrinsic
from torch import Tensor

TILE = 1024  # bytes
COLUMNS, DEPTH = 32, 32  # output features of a panel; input features of one of its pairs of tiles
AHEAD = 4 * TILE  # how early memory is asked for a weight
MOST_PANELS = 16  # that a thread takes at once: together they should stay in a core's cache
ONE, HALF, PER_E = np.float32(1), np.float32(0.5), np.float32(1 / math.log(2))
SERIES = tuple(np.float32(math.log(2) ** i / math.factorial(i)) for i in range(6))  # of 2 ** x near 0


@dataclass(frozen=True)
class Matrix:
    """A matrix `[out_features, in_features]` for `product`.

    Attributes:
        panels: bfloat16 `[out_features / 32, in_features / 32, 2 tiles, 16 pairs, 16 features, 2]`: in a tile the 32
            input features lie in pairs, and for each pair 16 output features.
        is_gate_up: the first tile of two is of the gate, the second of what it lets through.
    """

    panels: Tensor
    is_gate_up: bool


def fits(weight: Tensor) -> bool:
    """Whether `product` can multiply by a matrix of this type and shape on this machine."""
    is_whole = weight.shape[0] % COLUMNS == weight.shape[1] % DEPTH == 0
    return weight.dtype is torch.bfloat16 and is_whole and loop() is not None


def pack(weight: Tensor, is_gate_up: bool = False) -> Matrix:
    """`weight` in tiles. Of a gate_up matrix the upper half is the gate."""
    columns = weight.view(2, -1, 16, weight.shape[1]).transpose(0, 1) if is_gate_up else weight
    tiles = columns.reshape(-1, 2, 16, weight.shape[1] // DEPTH, 16, 2)
    return Matrix(tiles.permute(0, 3, 1, 4, 2, 5).contiguous(), is_gate_up)


def product(x: Tensor, matrix: Matrix) -> Tensor:
    """x `[num_tokens, in_features]` times the matrix, transposed; silu(gate) × up where it is a gate_up matrix.

    Sums are float32 and rounded once. A row's do not depend on the other rows.
    """
    x, (num_panels, depth) = x.contiguous(), matrix.panels.shape[:2]
    out = x.new_empty(len(x), num_panels * COLUMNS // (1 + matrix.is_gate_up))
    threads = torch.get_num_threads()
    share = min(MOST_PANELS, -(-num_panels // (2 * threads)))
    addresses = (x.data_ptr(), matrix.panels.data_ptr(), out.data_ptr())
    job = (ctypes.c_int64 * 9)(0, *addresses, len(x), num_panels, depth, matrix.is_gate_up, share)
    if len(x):
        _parallel()(loop().address, job, threads, 0)
    return out


@cache
def _parallel() -> Any:
    """Calls a function with a pointer in so many threads: what GCC makes of `omp parallel`."""
    call = ctypes.CDLL(None).GOMP_parallel
    call.argtypes, call.restype = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint], None
    return call


@cache
def loop() -> Any:
    """`_multiply` compiled, and kept on disk where there is room; None without AMX or without OpenMP."""
    compiles_for = cpu_target.target_context.codegen().magic_tuple()[-1]
    has_amx = sys.platform == "linux" and "+amx-bf16" in compiles_for and torch.cpu._init_amx()
    if not has_amx or not hasattr(ctypes.CDLL(None), "GOMP_parallel"):
        return None
    signature = types.void(types.CPointer(types.intp))
    try:
        return cfunc(signature, cache=True)(_multiply)
    except RuntimeError:  # no folder that can be written
        return cfunc(signature)(_multiply)


# ----- what Numba does not know -----


def _instruction(name: str, kinds: str) -> Any:
    """An instruction by LLVM's name; of its operands t is a tile's number, w a choice, a an address, n a number."""

    def types_and_code(_, *operands):
        def emit(context, builder, signature, values):
            ready = {
                "t": lambda operand, value: ir.IntType(8)(operand.literal_value),
                "w": lambda operand, value: ir.IntType(32)(operand.literal_value),
                "a": lambda operand, value: builder.inttoptr(value, cgutils.voidptr_t),
                "n": lambda operand, value: value,
            }
            given = [ready[kind](*each) for kind, *each in zip(kinds, operands, values, strict=True)]
            shape = ir.FunctionType(ir.VoidType(), [value.type for value in given])
            builder.call(cgutils.get_or_insert_function(builder.module, shape, f"llvm.{name}"), given)
            return context.get_dummy_value()

        return types.void(*operands), emit

    names = [Parameter(f"_{index}", Parameter.POSITIONAL_ONLY) for index in range(1 + len(kinds))]
    types_and_code.__signature__ = Signature(names)  # type: ignore[attr-defined]
    return intrinsic(prefer_literal=True)(types_and_code)


_configure = _instruction("x86.ldtilecfg", "a")
_zero = _instruction("x86.tilezero", "t")
_load = _instruction("x86.tileloadd64", "tan")
_store = _instruction("x86.tilestored64", "tan")
_add_product = _instruction("x86.tdpbf16ps", "ttt")
_release = _instruction("x86.tilerelease", "")
_prefetch = _instruction("prefetch.p0", "awww")


class _BFloat16(ir.types.Type):
    """LLVM's type, which llvmlite does not name."""

    def _to_string(self) -> str:
        return "bfloat"


SIXTEEN = ir.VectorType(ir.FloatType(), 16), ir.VectorType(_BFloat16(), 16)


@intrinsic
def _round_sixteen(_, source, target):
    """16 float32 at one address, a multiple of 64, as bfloat16 to another: the nearest, ties to even."""

    def emit(context, builder, signature, values):
        wide, narrow = (
            builder.inttoptr(at, kind.as_pointer()) for at, kind in zip(values, SIXTEEN, strict=True)
        )
        builder.store(builder.fptrunc(builder.load(wide, align=64), SIXTEEN[1]), narrow, align=2)
        return context.get_dummy_value()

    return types.void(source, target), emit


@intrinsic
def _take_number(_, counter):
    """What the counter says, which then says one more to the next who asks, whatever its thread."""

    def emit(context, builder, signature, values):
        return builder.atomic_rmw("add", values[0], ir.IntType(64)(1), "monotonic")

    return types.intp(counter), emit


# ----- the loop -----


def _multiply(job):
    """A thread's part of a product: some panels at a time, as long as there are any. See `product` for the job."""
    _, x, weights, out, rows, num_panels, depth, is_gate_up, share = carray(job, 9)
    # Rows go in pairs of tiles. Where too few are left, the last pair begins earlier, on rows that were done already.
    half = min(16, (rows + 1) // 2)
    x_row, out_tile = 2 * DEPTH * depth, 32 if is_gate_up else 64
    config = np.zeros(64, np.uint8)
    config[0], config[16:32:2], config[48:54], config[54:56] = 1, 64, half, 16
    _configure(config.ctypes.data)
    space = np.empty(1024 + 16, np.float32)
    sums = space[-(space.ctypes.data // 4) % 16 :]
    while True:
        taken = _take_number(job) * share  # type: ignore[call-arg]  # Numba gives the first
        if taken >= num_panels:
            break
        for start in range(0, rows, 2 * half):
            second = min(start + half, rows - half)
            first = max(second - half, 0)
            for panel in range(taken, min(taken + share, num_panels)):
                panel_at = weights + 2 * TILE * depth * panel
                _add_up(x + first * x_row, x + second * x_row, x_row, panel_at, depth)
                _store(0, sums.ctypes.data, 64)
                _store(1, sums.ctypes.data + 2 * TILE, 64)
                _store(2, sums.ctypes.data + 64 * half, 64)
                _store(3, sums.ctypes.data + 2 * TILE + 64 * half, 64)
                if is_gate_up:
                    _let_through(sums, 32 * half)
                for row in range(2 * half):
                    token = first + row if row < half else second + row - half
                    target = out + (token * num_panels + panel) * out_tile
                    _round_sixteen(sums.ctypes.data + 64 * row, target)
                    if not is_gate_up:
                        _round_sixteen(sums.ctypes.data + 2 * TILE + 64 * row, target + 32)
    _release()


@njit
def _add_up(above, below, x_row, weight, depth):
    """Two tiles of rows times a panel's two of columns, in tiles 0 to 3."""
    _zero(0)
    _zero(1)
    _zero(2)
    _zero(3)
    for _ in range(depth):
        for line in range(0, 2 * TILE, 64):
            _prefetch(weight + AHEAD + line, 0, 3, 1)  # for reading, near, data
        _load(4, above, x_row)
        _load(6, weight, 64)
        _load(7, weight + TILE, 64)
        _add_product(0, 4, 6)
        _load(5, below, x_row)
        _add_product(1, 4, 7)
        _add_product(2, 5, 6)
        _add_product(3, 5, 7)
        above, below, weight = above + 64, below + 64, weight + 2 * TILE


@njit(error_model="numpy", fastmath={"reassoc", "contract", "arcp", "nsz"})  # a NaN stays a NaN
def _let_through(sums, count):
    """silu(gate) × up in place of the gate: the first `count` sums by those 512 further on."""
    for i in range(count):
        # exp(-gate) is a power of two: its whole part makes a float32's exponent, a series gives the rest.
        power = min(max(-sums[i] * PER_E, np.float32(-126)), np.float32(126))
        whole = np.floor(power + HALF)
        rest = power - whole
        root = SERIES[5]
        for term in (4, 3, 2, 1, 0):
            root = root * rest + SERIES[term]
        exp = root * np.int32((np.int32(whole) + np.int32(127)) << np.int32(23)).view(np.float32)
        sums[i] = sums[i] / (ONE + exp) * sums[i + 512]
