"""Which submissions look alike: pieces of code that two students share and hardly anyone else has.

A file becomes a row of tokens, with every name and every number taken for the same one, and the row becomes
shingles, each SHINGLE tokens in a row (Broder 1997). What many of a class have, such as what was handed out and the
one way to write a short function, says nothing and is left out. Renamed variables and functions in another order
are seen through; code that was written anew is not. The course itself is compared too, since its library tells some
of the answers. Two alike are a place to look, and no proof.
"""

from __future__ import annotations

import keyword
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from zlib import crc32

from lessonlib import layout

SHINGLE = 12  # tokens
COMMON = 0.1  # share of the class, and at least MOST_SHARING students, that make a shingle common
MOST_SHARING = 3
COURSE = "the course"
LEAST_RARE = 15  # rare shingles that the shorter of two has to have
ALIKE = 0.6  # share of the shorter one's rare shingles, from which on two are listed

TOKEN = re.compile(
    r"""(?P<skip>\#[^\n]*|\s+|\\\n)"""
    r"""|(?P<text>[rbfuRBFU]{0,2}(?:"{3}.*?(?:"{3}|\Z)|'{3}.*?(?:'{3}|\Z)|"(?:\\.|[^"\n])*"?|'(?:\\.|[^'\n])*'?))"""
    r"""|(?P<name>[^\W\d]\w*)|(?P<number>\d[\w.]*)|(?P<sign>.)""",
    re.DOTALL,
)


@dataclass(frozen=True)
class Pair:
    """Two students whose files for an exercise look alike; `share` of the shorter one's rare shingles is in both."""

    exercise: str
    first: str
    second: str
    share: float
    shingles: int


def shingles(source: bytes) -> frozenset[int]:
    """What a file is compared by."""
    tokens = [_token(found) for found in TOKEN.finditer(source.decode("utf-8", "replace"))]
    tokens = [token for token in tokens if token]
    rows = zip(*(tokens[start:] for start in range(SHINGLE)), strict=False)
    return frozenset(crc32(" ".join(row).encode()) for row in rows)


def _token(found: re.Match[str]) -> str:
    match found.lastgroup:
        case "name":
            return found[0] if keyword.iskeyword(found[0]) else "n"
        case "text":
            return "s"
        case "number":
            return "0"
        case "sign":
            return found[0]
    return ""


def of_course() -> frozenset[int]:
    """What the course's own code is compared by: its library, and the worked answers where they are."""
    paths = [*layout.PACKAGE.rglob("*.py"), *(layout.source() / layout.SOLUTIONS).glob("ex*.py")]
    return frozenset().union(*(shingles(path.read_bytes()) for path in paths))


def alike(
    files: Mapping[str, Mapping[str, frozenset[int]]], course: frozenset[int] = frozenset()
) -> list[Pair]:
    """The pairs of a class, and of its students with the course, the most alike first.

    Args:
        files: student → exercise → shingles.
        course: shingles of the course's own code.
    """
    by_exercise: dict[str, dict[str, frozenset[int]]] = defaultdict(dict)
    for student, theirs in files.items():
        for exercise, found in theirs.items():
            by_exercise[exercise][student] = found
    pairs = [pair for exercise, found in by_exercise.items() for pair in _alike_in(exercise, found, course)]
    return sorted(
        pairs, key=lambda pair: (-pair.share, -pair.shingles, pair.exercise, pair.first, pair.second)
    )


def _alike_in(exercise: str, files: Mapping[str, frozenset[int]], course: frozenset[int]) -> Sequence[Pair]:
    counts = Counter(each for found in files.values() for each in found)
    most = max(MOST_SHARING, COMMON * len(files))
    rare = {student: {each for each in found if counts[each] <= most} for student, found in files.items()}
    pairs = []
    compared = [*combinations(sorted(rare.items()), 2), *((each, (COURSE, course)) for each in rare.items())]
    for (first, one), (second, other) in compared:
        least, shared = min(len(one), len(other)), len(one & other)
        if least >= LEAST_RARE and shared >= ALIKE * least:
            pairs.append(Pair(exercise, first, second, shared / least, shared))
    return pairs
