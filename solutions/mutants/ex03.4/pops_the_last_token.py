"""Takes the last token off the caller's own prompt.

property: the inputs are left as they were
told: It changed its input tokens from [
"""


def cached_tokens(tokens, salt, earlier, block_size):
    stored = {digest for text in earlier for digest in block_hashes(*text, block_size)}  # noqa: F821
    hits = 0
    tokens.pop()
    for digest in block_hashes(tokens, salt, block_size):  # noqa: F821
        if digest not in stored:
            break
        hits += block_size
    return hits
