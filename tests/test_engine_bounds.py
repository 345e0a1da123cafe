"""Every index of the CPU's compiled loops, checked: a ride to the last position, with bounds on."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from bounded_ride import DTYPES, answers
from engine_models import write_config

RIDE = Path(__file__).with_name("bounded_ride.py")

pytestmark = pytest.mark.usefixtures("one_thread")


def test_no_loop_of_a_ride_reads_or_writes_beyond_its_arrays(tmp_path):
    folder = write_config(tmp_path / "tiny")
    # Numba keeps compiled loops on disk and would take those without checks: so a cache of its own.
    checked = {"NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    path = os.pathsep.join([str(RIDE.parents[1]), *sys.path])
    done = subprocess.run(
        [sys.executable, str(RIDE), str(folder)],
        env={**os.environ, **checked, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["beyond"] == ["", "IndexError", "IndexError"]  # bounds are on
    assert found["answers"] == {dtype: answers(str(folder), dtype) for dtype in DTYPES}
