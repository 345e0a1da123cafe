"""Starts every chain at the same place: tenants find each other's texts.

property: nothing is shared between salts
told: cached_tokens(tokens=[
"""

import hashlib
from array import array


def block_hashes(tokens, salt, block_size):
    parent = hashlib.sha256(b"").digest()
    hashes = []
    for end in range(block_size, len(tokens) + 1, block_size):
        block = array("q", tokens[end - block_size : end])
        parent = hashlib.sha256(parent + block.tobytes()).digest()
        hashes.append(parent.hex())
    return hashes
