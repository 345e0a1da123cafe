"""Hashes the tokens that are left over as well.

property: only full blocks have a hash
told: block_hashes(tokens=[
"""

import hashlib
from array import array


def block_hashes(tokens, salt, block_size):
    parent = hashlib.sha256(salt.encode()).digest()
    hashes = []
    for end in range(block_size, len(tokens) + block_size, block_size):
        block = array("q", tokens[end - block_size : end])
        parent = hashlib.sha256(parent + block.tobytes()).digest()
        hashes.append(parent.hex())
    return hashes
