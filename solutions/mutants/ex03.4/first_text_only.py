"""Looks only at the text that came first.

property: whatever is stored is found
told: earlier=[([
"""


def cached_tokens(tokens, salt, earlier, block_size):
    stored = {digest for text in earlier[:1] for digest in block_hashes(*text, block_size)}  # noqa: F821
    hits = 0
    for digest in block_hashes(tokens[:-1], salt, block_size):  # noqa: F821
        if digest not in stored:
            break
        hits += block_size
    return hits
