"""One little script, run by two Pythons: as it stands by the course's engine, with one import line changed by vLLM."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from lessonlib import recorded
from lessonlib.contenders.process import own_path, vllm_python
from lessonlib.engine.checkpoint import COURSE_MODEL, resolve
from lessonlib.errors import CourseError

OURS, THEIRS = "from lessonlib.engine import LLM, SamplingParams", "from vllm import LLM, SamplingParams"

SCRIPT = f"""\
import sys
{OURS}

llm = LLM(sys.argv[1], dtype="float32", max_num_seqs=4, max_model_len=256, enforce_eager=True)
questions = ["What is the capital of France?", "Name three fruits.", "Write a haiku about rain."]
chats = [[{{"role": "user", "content": question}}] for question in questions]
params = SamplingParams(temperature=0, max_tokens=24)
for answer in llm.chat(chats, params, use_tqdm=False):
    print(repr(answer.outputs[0].text))
"""

RECORDED = "one_import_line"
SECONDS = 110.0
QUIET = {
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_USE_FLASHINFER_SAMPLER": "0",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


def changed(script: str) -> str:
    """The script with vLLM in its import line. Raises `CourseError` where that line is not there once."""
    if script.count(OURS) != 1:
        raise CourseError(f"the script should have the line `{OURS}` once")
    return script.replace(OURS, THEIRS)


def words(script: str) -> list[str]:
    """The lines that a script prints, run as a program by the Python that has what it imports.

    Raises `CourseError` where there is no vLLM for it, or where it fails, with its last words.
    """
    is_theirs = THEIRS in script
    python = vllm_python() if is_theirs else sys.executable
    with tempfile.TemporaryDirectory(prefix="swap-") as folder:
        path = Path(folder) / "script.py"
        path.write_text(script, encoding="utf-8")
        variables = {**os.environ, **QUIET, "PYTHONPATH": "" if is_theirs else os.pathsep.join(own_path())}
        done = subprocess.run(
            [python, str(path), str(resolve(COURSE_MODEL))],
            capture_output=True,
            text=True,
            errors="replace",
            cwd=folder,
            env=variables,
            timeout=SECONDS,
        )
    if done.returncode:
        raise CourseError(f"the script ended with status {done.returncode}: {done.stderr.strip()[-400:]}")
    return done.stdout.splitlines()


def words_of_vllm(script: str) -> list[str]:
    """What vLLM says; where it is not set up, what it said when it was recorded, and a line that tells so."""
    try:
        return words(changed(script))
    except CourseError as error:
        record = recorded.load(RECORDED)
        print(f"{error}\nShown instead: {recorded.label(record)}")
        return record["words"]
