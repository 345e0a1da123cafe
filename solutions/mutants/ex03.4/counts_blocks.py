"""Counts blocks where tokens were asked for.

property: only full blocks are shared
told: block_size=2
"""


def cached_tokens(tokens, salt, earlier, block_size):
    stored = {digest for text in earlier for digest in block_hashes(*text, block_size)}  # noqa: F821
    hits = 0
    for digest in block_hashes(tokens[:-1], salt, block_size):  # noqa: F821
        if digest not in stored:
            break
        hits += 1
    return hits
