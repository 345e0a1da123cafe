"""Answers with bytes where digits were asked for.

property: the answer has the right form
told: hash should be a string
"""

import hashlib
from array import array


def block_hashes(tokens, salt, block_size):
    parent = hashlib.sha256(salt.encode()).digest()
    hashes = []
    for end in range(block_size, len(tokens) + 1, block_size):
        block = array("q", tokens[end - block_size : end])
        parent = hashlib.sha256(parent + block.tobytes()).digest()
        hashes.append(parent)
    return hashes
