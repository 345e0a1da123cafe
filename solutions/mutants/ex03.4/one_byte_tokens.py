"""Packs each token into one byte: fine until the vocabulary is larger.

property: no call raises an error
told: OverflowError
"""

import hashlib
from array import array


def block_hashes(tokens, salt, block_size):
    parent = hashlib.sha256(salt.encode()).digest()
    hashes = []
    for end in range(block_size, len(tokens) + 1, block_size):
        block = array("B", tokens[end - block_size : end])
        parent = hashlib.sha256(parent + block.tobytes()).digest()
        hashes.append(parent.hex())
    return hashes
