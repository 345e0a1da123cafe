"""Forgets the last block, which is only half full.

property: no block is lost and none is held twice
told: release(free=[], table=[
"""


def release(free, table):
    return [*free, *table[:-1][::-1]]
