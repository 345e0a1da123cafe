"""What exercise 04 must do: what a paged-attention kernel does to one tile, in NumPy; and the kernel itself."""

from pathlib import Path

import kernels
from lessonlib.checks.ex04.combine import COMBINE
from lessonlib.checks.ex04.decode_attention import DECODE
from lessonlib.checks.ex04.fold_tile import FOLD
from lessonlib.checks.ex04.gather import GATHER
from lessonlib.checks.ex04.mask_tile import MASK
from lessonlib.checks.spec import INTERPRETER, Exercise

EX04 = Exercise("ex04", (FOLD, GATHER, MASK, COMBINE), packages=("numpy",))

EX04_KERNEL = Exercise(
    id="ex04_kernel",
    tasks=(DECODE,),
    packages=("numpy", "torch", "triton"),
    tier=INTERPRETER,
    harness={
        "kernel_harness.py": Path(__file__).with_name("kernel_harness.py"),
        "kernels/batches.py": Path(kernels.__file__).with_name("batches.py"),
    },
    patience=10,
)
