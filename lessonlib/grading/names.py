"""Names of students: as the platform has them, fit to be shown, and short enough for a file."""

from __future__ import annotations

import hashlib
import os
import unicodedata

from lessonlib.checks.sandbox.cleaning import JOINERS, is_clean

MAX_STEM = 200  # bytes of a file's name before its ending: a file system takes 255 with it
SHORT_STEM = 40  # characters that are kept of a longer one


def shown_name(name: str) -> str:
    """A file's name as a student's, whatever the locale: what cannot be shown is written as its bytes, %E9."""
    name = os.fsencode(name).decode("utf-8", "surrogateescape")
    return "".join(each if is_clean(each) else _as_bytes(each) for each in name)


def _as_bytes(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "surrogateescape"))


def same_name(name: str) -> str:
    """The same for names that a reader cannot tell apart: composed or not, in capitals or not."""
    folded = unicodedata.normalize("NFKC", name).casefold()
    return " ".join("".join(each for each in folded if each not in JOINERS).split())


def file_stem(student: str) -> str:
    """What a student's record files are called, without their endings; UTF-8 whatever the locale."""
    encoded = student.encode()
    if len(encoded) > MAX_STEM:
        encoded = f"{student[:SHORT_STEM]}~{hashlib.sha256(encoded).hexdigest()[:12]}".encode()
    return os.fsdecode(encoded)
