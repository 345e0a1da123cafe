"""Tables: as aligned text for a terminal, and as HTML for a notebook, where printed columns tear on a narrow page."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape


class Table:
    """Cells as a table of HTML in a notebook, and as aligned text elsewhere. The first column is aligned left."""

    def __init__(self, cells: Sequence[Sequence[str]]) -> None:
        self.cells = cells

    def __repr__(self) -> str:
        return align(self.cells)

    def _repr_html_(self) -> str:
        head, *rows = (
            "".join(_cell("td" if place else "th", index, text) for index, text in enumerate(row))
            for place, row in enumerate(self.cells)
        )
        body = "".join(f"<tr>{row}</tr>" for row in rows)
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(tag: str, index: int, text: str) -> str:
    side = "right" if index else "left"
    return f'<{tag} style="text-align: {side}; white-space: nowrap">{escape(text)}</{tag}>'


def align(lines: Sequence[Sequence[str]]) -> str:
    """Cells as a table for a terminal: the first column aligned left, the others right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(w) if not i else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )
