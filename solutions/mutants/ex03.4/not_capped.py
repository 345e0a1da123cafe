"""Lets the whole prompt be a hit: nothing is left to sample from.

property: at least one token is left to compute
told: cached_tokens(tokens=[
"""


def cached_tokens(tokens, salt, earlier, block_size):
    stored = {digest for text in earlier for digest in block_hashes(*text, block_size)}  # noqa: F821
    hits = 0
    for digest in block_hashes(tokens, salt, block_size):  # noqa: F821
        if digest not in stored:
            break
        hits += block_size
    return hits
