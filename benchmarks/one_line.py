"""What vLLM says to the script of notebook 06, kept for machines where it is not set up.

    python -m benchmarks.one_line [--out FOLDER]

Nothing is timed. The words are greedy in float32: the course's engine gives the same, and this program fails where
it does not.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from kernels.machine import machine
from lessonlib.contenders import import_line
from lessonlib.contenders.process import vllm_python
from lessonlib.files import write_whole


def main() -> int:
    """Run both, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    ours, theirs = (
        import_line.output(script)
        for script in (import_line.SCRIPT, import_line.for_vllm(import_line.SCRIPT))
    )
    if ours != theirs:
        print(f"the course says {ours}, vLLM says {theirs}", file=sys.stderr)
        return 1
    find = "import vllm; print(vllm.__version__)"
    version = subprocess.run([vllm_python(), "-c", find], capture_output=True, text=True, check=True)
    result = {**machine(), "words": theirs}
    result["versions"]["vllm"] = version.stdout.split()[-1]
    print(write_whole(options.out / f"{import_line.RECORDED}.json", json.dumps(result, indent=1) + "\n"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
