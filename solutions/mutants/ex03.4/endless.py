"""Looks for the first hit until it finds one.

property: every call comes back
told: No answer within
"""


def cached_tokens(tokens, salt, earlier, block_size):
    stored = {digest for text in earlier for digest in block_hashes(*text, block_size)}  # noqa: F821
    hits = 0
    while not stored.intersection(block_hashes(tokens, salt, block_size)):  # noqa: F821
        pass
    for digest in block_hashes(tokens[:-1], salt, block_size):  # noqa: F821
        if digest not in stored:
            break
        hits += block_size
    return hits
