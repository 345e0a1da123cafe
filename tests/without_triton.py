"""An environment like this one, but for Triton: what a machine has for which there is no Triton.

python tests/without_triton.py build/without-triton    # then build/without-triton/bin/python

Its packages are links to this environment's, so it costs a fraction of a second and no space. Every process that its
Python starts, notebook kernels among them, lacks Triton as well.
"""

from __future__ import annotations

import sys
import sysconfig
import venv
from pathlib import Path


def make(folder: Path) -> Path:
    """Make the environment, in the place of an earlier one. Returns its Python."""
    venv.create(folder, symlinks=True, with_pip=False, clear=True)
    bases = {"base": str(folder), "platbase": str(folder)}
    for kind in ("purelib", "platlib"):
        target = Path(sysconfig.get_path(kind, vars=bases))
        for entry in Path(sysconfig.get_path(kind)).iterdir():
            link = target / entry.name
            if not entry.name.lower().startswith("triton") and not link.exists():
                link.symlink_to(entry)
    return folder / "bin" / "python"


if __name__ == "__main__":
    print(make(Path(sys.argv[1])))
