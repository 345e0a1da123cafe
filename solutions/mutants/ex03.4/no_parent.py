"""Hashes each block by its own tokens and the salt.

property: a block is a hit only where all before it agrees
told: cached_tokens(tokens=[
"""

import hashlib
from array import array


def block_hashes(tokens, salt, block_size):
    parent = hashlib.sha256(salt.encode()).digest()
    root, hashes = parent, []
    for end in range(block_size, len(tokens) + 1, block_size):
        block = array("q", tokens[end - block_size : end])
        parent = hashlib.sha256(root + block.tobytes()).digest()
        hashes.append(parent.hex())
    return hashes
