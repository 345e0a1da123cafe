"""Makes text that a student wrote fit to show: names of files and classes, messages, what was printed.

A terminal takes escape characters for orders, and bidi characters reorder what stands around them. Every way
out of the checker and the grader goes through `clean`: the terminal, HTML, CSV, XML and JSON.
"""

from __future__ import annotations

import unicodedata

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
JOINERS = "\N{ZERO WIDTH NON-JOINER}\N{ZERO WIDTH JOINER}"  # Hindi and Persian are spelled with them
CUT = "…"


def clean(text: str, most: int | None = None) -> str:
    """`text` in one line, with nothing in it but characters that are seen; cut to `most` characters.

    Control, format, bidi and surrogate characters become U+FFFD, other kinds of spaces a plain one.
    """
    return _cut("".join(map(_seen, text if most is None else text[: most + 1])), most)


def clean_lines(text: str, most: int | None = None) -> str:
    """As `clean`, with the line breaks and tabs of `text` kept."""
    cut = text if most is None else text[: most + 1]
    return _cut("".join(each if each in "\n\t" else _seen(each) for each in cut), most)


def is_clean(text: str) -> bool:
    """Whether `clean` leaves it as it is."""
    return clean(text) == text


def _seen(character: str) -> str:
    if character.isprintable() or character in JOINERS:
        return character
    return " " if unicodedata.category(character) == "Zs" else REPLACEMENT


def _cut(text: str, most: int | None) -> str:
    return text if most is None or len(text) <= most else text[:most] + CUT
