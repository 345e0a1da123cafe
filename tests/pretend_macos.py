"""Runs the course where Linux's own things are missing: no Triton, no `/proc`, none of Linux's system calls.

python tests/pretend_macos.py MODEL    # prints what came of it as JSON

It is Linux all the same: libraries are imported before, and the course finds `sys.platform` to be macOS's. What touches
a file of `/proc` or `/sys`, or looks for a function that only Linux has, is stopped with the error that macOS gives.
"""

from __future__ import annotations

import ctypes  # noqa: F401 - it looks for functions itself, when it is imported
import importlib
import json
import os
import resource
import select
import signal
import sys
import tempfile
from pathlib import Path

import accelerate  # noqa: F401
import distributed  # noqa: F401
import IPython.display  # noqa: F401
import ipywidgets  # noqa: F401
import matplotlib.figure  # noqa: F401
import nbclient  # noqa: F401
import numba  # noqa: F401
import psutil  # noqa: F401
import torch  # noqa: F401
import transformers.models.llama  # noqa: F401

ROOT = Path(__file__).parents[1]
LINUX_ONLY = {
    os: ("sched_getaffinity", "sched_setaffinity", "pidfd_open", "memfd_create", "posix_fadvise"),
    signal: ("pidfd_send_signal",),
    select: ("epoll",),
}
NO_SUCH_SYMBOL = ("GOMP_parallel", "prctl")
touched: list[str] = []
real_access = os.access


def access(path: object, mode: int) -> bool:
    """`os.access`, of which an audit hook hears nothing."""
    return not str(path).startswith(("/proc", "/sys/")) and real_access(path, mode)


def forbid(event: str, arguments: tuple) -> None:
    """An audit hook: what macOS has not is not found."""
    first = str(arguments[0]) if arguments else ""
    reads = event in ("open", "os.listdir", "os.scandir") and first.startswith(("/proc", "/sys/"))
    if reads and not asked_by_psutil():
        touched.append(first)
        raise FileNotFoundError(2, "No such file or directory", first)
    if event == "ctypes.dlsym" and arguments[1] in NO_SUCH_SYMBOL:
        raise AttributeError(f"dlsym(RTLD_DEFAULT, {arguments[1]}): symbol not found")


def asked_by_psutil() -> bool:
    """psutil has an answer of macOS's own; here it may look where Linux keeps one."""
    frame = sys._getframe(2)
    while frame is not None and not frame.f_globals.get("__name__", "").startswith("psutil"):
        frame = frame.f_back
    return frame is not None


def pretend() -> None:
    """From here on this is macOS, as far as the course can tell."""
    for module, names in LINUX_ONLY.items():
        for name in names:
            if hasattr(module, name):
                delattr(module, name)
    os.access = access
    sys.platform = "darwin"
    sys.addaudithook(forbid)


def course_modules() -> list[str]:
    """Every module of the course that a command or a notebook imports without a GPU."""
    elsewhere = (
        "kernel_harness",
        "kernel_reference",
        "vllm_scheduler",
    )  # run beside a kernel, or in vLLM's process
    names = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in sorted((ROOT / "lessonlib").rglob("*.py"))
        if path.stem not in (*elsewhere, "__main__")
    ]
    return names


def main() -> None:
    pretend()
    for name in course_modules():
        importlib.import_module(name)

    from kernels.machine import cpu
    from lessonlib import doctor
    from lessonlib.checks import check
    from lessonlib.contenders.child import peak_bytes
    from lessonlib.engine import LLM, SamplingParams
    from lessonlib.engine.cpu.huge_pages import use_huge_pages

    cpu()
    use_huge_pages()
    llm = LLM(sys.argv[1], skip_tokenizer_init=True, max_num_seqs=2, max_model_len=64)
    (answer,) = llm.generate([{"prompt_token_ids": [1, 2, 3]}], SamplingParams(max_tokens=4, ignore_eos=True))
    with tempfile.TemporaryDirectory() as folder:
        for name in ("ex01.py", "ex04_kernel.py"):
            (Path(folder) / name).write_bytes((ROOT / "solutions" / name).read_bytes())
        report = check("ex01", "ex04_kernel", folder=folder, seed=0)
    found = doctor.report()
    result = {
        "answer": answer.outputs[0].token_ids,
        "peak_bytes_are_getrusage's": peak_bytes()["host"]
        == resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        "checks": [(each.id, each.status, each.sentence) for each in report.results],
        "sandbox": ", ".join(map(str, report.levels)),
        "remedies": {part["name"]: part["remedy"] for part in found["parts"]},
        "tier": found["tier"],
        "touched": sorted(set(touched)),
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
