"""Every kernel goes through Triton's compiler, whatever machine this is; the interpreter lets more pass."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

OFFLINE = Path(__file__).parent / "offline_kernels.py"
KERNELS = Path(__file__).parents[1] / "kernels"
FILES = ("attention.py", "cache.py", "ladder.py", "linear.py", "pointwise.py")  # the others need results
KERNEL = re.compile(r"^def (_\w+_kernel)\(", re.MULTILINE)


def compiled(root, *arguments):
    """The script's end, with the `kernels` that lie in a folder."""
    environment = {**os.environ, "PYTHONPATH": str(root)}
    return subprocess.run(
        [sys.executable, OFFLINE, *arguments], capture_output=True, text=True, timeout=300, env=environment
    )


@pytest.mark.parametrize("capability", ["80", "90"])
def test_every_kernel_compiles(capability):
    done = compiled(KERNELS.parent, capability)
    assert done.returncode == 0, done.stderr[-2000:]
    names = {line.split()[0] for line in done.stdout.splitlines() if line.startswith("_")}
    assert names == {name for file in FILES for name in KERNEL.findall((KERNELS / file).read_text())}


def test_what_only_the_compiler_refuses_is_refused(tmp_path):
    """A name that stands for two shapes, as the interpreter lets it."""
    broken = tmp_path / "kernels"
    broken.mkdir()
    for path in KERNELS.glob("*.py"):
        (broken / path.name).write_text(path.read_text().replace("k_first", "first"))
    done = compiled(tmp_path)
    assert done.returncode != 0
    assert "CompilationError" in done.stderr
