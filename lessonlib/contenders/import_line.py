"""One script for two engines: as it is for the course's, and with one import line changed for vLLM."""

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

COURSE_IMPORT = "from lessonlib.engine import LLM, SamplingParams"
VLLM_IMPORT = "from vllm import LLM, SamplingParams"

SCRIPT = f"""\
import sys
{COURSE_IMPORT}

llm = LLM(sys.argv[1], dtype="float32", max_num_seqs=4, max_model_len=256, enforce_eager=True)
questions = ["What is the capital of France?", "Name three fruits.", "Write a haiku about rain."]
chats = [[{{"role": "user", "content": question}}] for question in questions]
params = SamplingParams(temperature=0, max_tokens=24)
for answer in llm.chat(chats, params, use_tqdm=False):
    print(repr(answer.outputs[0].text))
"""

RECORDED = "one_import_line"
TIMEOUT = 110.0  # seconds
QUIET = {
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_USE_FLASHINFER_SAMPLER": "0",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


def for_vllm(script: str) -> str:
    """The script with vLLM in its import line. Raises `CourseError` unless it has that line once."""
    if script.count(COURSE_IMPORT) != 1:
        raise CourseError(f"the script should have the line `{COURSE_IMPORT}` once")
    return script.replace(COURSE_IMPORT, VLLM_IMPORT)


def output(script: str) -> list[str]:
    """The lines that a script prints, run as a program by the Python that has what it imports.

    Raises `CourseError` if it needs vLLM and there is none, or if it fails, with the end of its error.
    """
    needs_vllm = VLLM_IMPORT in script
    python = vllm_python() if needs_vllm else sys.executable
    with tempfile.TemporaryDirectory(prefix="import-line-") as folder:
        path = Path(folder) / "script.py"
        path.write_text(script, encoding="utf-8")
        variables = {**os.environ, **QUIET, "PYTHONPATH": "" if needs_vllm else os.pathsep.join(own_path())}
        done = subprocess.run(
            [python, str(path), str(resolve(COURSE_MODEL))],
            capture_output=True,
            text=True,
            errors="replace",
            cwd=folder,
            env=variables,
            timeout=TIMEOUT,
        )
    if done.returncode:
        raise CourseError(f"the script ended with status {done.returncode}: {done.stderr.strip()[-400:]}")
    return done.stdout.splitlines()


def output_of_vllm(script: str) -> list[str]:
    """The lines that the script prints with vLLM; if vLLM is not installed, the recorded ones, and it prints that."""
    try:
        return output(for_vllm(script))
    except CourseError as error:
        record = recorded.load(RECORDED)
        print(f"{error}\nShown instead: {recorded.label(record)}")
        return record["words"]
