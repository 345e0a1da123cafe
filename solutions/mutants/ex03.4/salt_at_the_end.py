"""Puts the salt after the tokens of the first block, not before.

property: a hash is the sha256 of the parent and the tokens, from the salt on
told: block_hashes(tokens=[
"""

import hashlib
from array import array


def block_hashes(tokens, salt, block_size):
    parent = b""
    hashes = []
    for end in range(block_size, len(tokens) + 1, block_size):
        block = array("q", tokens[end - block_size : end])
        parent = hashlib.sha256(parent + block.tobytes() + salt.encode()).digest()
        hashes.append(parent.hex())
    return hashes
