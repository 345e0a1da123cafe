"""Figures that vary from machine to machine, told so that a notebook stays the same.

A notebook's stored text is compared word for word with every later run. A measured number would differ each
time, so the number goes into a picture and the sentence that the text makes of it goes through here.
"""

from __future__ import annotations


def claim(sentence: str, holds: bool) -> None:
    """Print "sentence: yes"; raise AssertionError where it does not hold on this machine."""
    if not holds:
        raise AssertionError(f"{sentence}: no, not in this run")
    print(f"{sentence}: yes")
