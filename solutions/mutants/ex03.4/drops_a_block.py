"""Never shares the last full block, also where tokens are left behind it.

property: whatever is stored is found
told: cached_tokens(tokens=[
"""


def cached_tokens(tokens, salt, earlier, block_size):
    stored = {digest for text in earlier for digest in block_hashes(*text, block_size)}  # noqa: F821
    hits = 0
    for digest in block_hashes(tokens, salt, block_size)[:-1]:  # noqa: F821
        if digest not in stored:
            break
        hits += block_size
    return hits
