"""Frees the last block twice.

property: no block is lost and none is held twice
told: release(free=[], table=[
"""


def release(free, table):
    return [*free, *table[::-1], table[-1]]
