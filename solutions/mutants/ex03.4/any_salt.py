"""Looks the prompt up under every tenant's salt.

property: nothing is shared between salts
told: cached_tokens(tokens=[
"""


def cached_tokens(tokens, salt, earlier, block_size):
    stored = {digest for text in earlier for digest in block_hashes(*text, block_size)}  # noqa: F821
    salt = earlier[0][1] if earlier else salt
    hits = 0
    for digest in block_hashes(tokens[:-1], salt, block_size):  # noqa: F821
        if digest not in stored:
            break
        hits += block_size
    return hits
