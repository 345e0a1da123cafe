"""What a contender's process needs of an engine."""

from __future__ import annotations

from typing import Any, Protocol

from lessonlib.contenders.job import Measurement, Row


class Engine(Protocol):
    """An engine with its model loaded. `make(entry, job)` of a contender's module gives one.

    Attributes:
        settings: how it was set up, as far as a reader of the record must know. Ready for JSON. `max_num_seqs`,
            `max_num_batched_tokens`, `block_size` and `num_blocks` have to be there, None for no limit. Without
            blocks `cache_tokens`, the tokens that it has K/V memory for, has to be there too or in the settings of
            each `Measurement`.
        packages: the distributions whose versions are recorded.
    """

    settings: dict[str, Any]
    packages: tuple[str, ...]

    def run(self, row: Row) -> Measurement:
        """Run a row once, from its prompts to its last token."""
