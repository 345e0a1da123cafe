"""Takes one token off the hits: part of a block.

property: only full blocks are shared
told: block_size=2
"""


def cached_tokens(tokens, salt, earlier, block_size):
    stored = {digest for text in earlier for digest in block_hashes(*text, block_size)}  # noqa: F821
    hits = 0
    for digest in block_hashes(tokens, salt, block_size):  # noqa: F821
        if digest not in stored:
            break
        hits += block_size
    return min(hits, len(tokens) - 1)
