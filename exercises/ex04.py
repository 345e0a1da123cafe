"""Exercise 04: what a paged-attention kernel does to one tile, in NumPy.

A kernel looks at keys and values tile by tile. What it knows of one row (one query of one head) after some of
the tiles is three things, its state:

  best   float        the largest score so far, -inf before the first
  total  float        the weights so far, added up: exp(score - best) of every score
  acc    float [dim]  the values so far, each times its weight, added up

Each function returns new arrays and leaves its inputs as they were. Numbers are float64 and stay so: answers must
be right to one part in a million, which float32 does not give. Places that hold nobody's numbers may hold NaN, as they
may in a server's memory.

Check your work with `lesson check ex04` in a terminal, or with `check("ex04")` in a notebook cell. The inputs
are fresh each time. What has to hold, besides plain good manners (an answer of the right form, inputs left as
they were, no call that goes on forever):

ex04.1 fold_tile
  - nothing overflows and nothing becomes NaN
  - best is the largest score so far
  - total counts every weight in units of the new best
  - acc follows the same weights as total

ex04.2 gather
  - one row for each token
  - no row is a neighbor's
  - rows stand in the order of the tokens

ex04.3 mask_tile
  - a score that may be seen stays as it was
  - what a row may not see scores -inf
  - values beyond the end are zero
  - values within the length stay as they were

ex04.4 combine
  - nothing overflows and nothing becomes NaN
  - an empty piece changes nothing
  - pieces with the same best add up
  - each piece counts in units of the larger best
"""

import numpy as np


def fold_tile(
    best: float, total: float, acc: np.ndarray, scores: np.ndarray, values: np.ndarray
) -> tuple[float, float, np.ndarray]:
    """ex04.1: online softmax: fold one more tile into the state of a row.

    Args:
        best, total, acc: the state, as above; -inf, 0 and zeros before the first tile.
        scores: float [tile], any size of number; -inf where a token may not be seen. All may be -inf, also in
            the first tile: then the state stays what it was.
        values: float [tile, dim].

    Returns:
        (best, total, acc) after the tile.
    """
    raise NotImplementedError("ex04.1: fold_tile is not written yet")


def gather(cache: np.ndarray, blocks: np.ndarray, length: int) -> np.ndarray:
    """ex04.2: a sequence's rows, in the order of its tokens, fetched through its block table.

    Args:
        cache: float [num_blocks, block_size, dim].
        blocks: int64 [max_blocks], the block of tokens 0 … block_size-1, of the next block_size tokens, and so
            on. Entries that the length does not need hold anything, also ids that the cache does not have.
        length: how many tokens the sequence has, 0 or more.

    Returns:
        float [length, dim].
    """
    raise NotImplementedError("ex04.2: gather is not written yet")


def mask_tile(
    scores: np.ndarray, values: np.ndarray, first_token: int, last_visible: np.ndarray, length: int
) -> tuple[np.ndarray, np.ndarray]:
    """ex04.3: make a tile safe to use: no row looks ahead, and nothing from beyond the end comes through.

    The tile's tokens are first_token, first_token + 1, … Those from `length` on are not the sequence's own:
    their scores and values hold anything, NaN too. Afterwards `exp(scores) @ values` must be right forevery row.

    Args:
        scores: float [rows, tile].
        values: float [tile, dim].
        first_token: the position of the tile's first token.
        last_visible: int64 [rows], the last position that each row may see, below `length`.
        length: tokens of the sequence.

    Returns:
        (scores, values), masked, with the shapes that they came in.
    """
    raise NotImplementedError("ex04.3: mask_tile is not written yet")


def combine(left: tuple[float, float, np.ndarray], right: tuple[float, float, np.ndarray]) -> np.ndarray:
    """ex04.4: the answer of a row that was split in two, from the states of its pieces.

    Args:
        left: (best, total, acc) of the tokens before the cut.
        right: the same of the tokens after it. One of the two may be empty: (-inf, 0, zeros).

    Returns:
        float [dim], the values' weighted mean over the tokens of both pieces.
    """
    raise NotImplementedError("ex04.4: combine is not written yet")
