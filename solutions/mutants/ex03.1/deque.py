"""Keeps the free blocks in a deque: right for a pool, but not the list that was asked for.

property: the answer has the right form
told: is a deque.
"""

from collections import deque


def allocate(free, num_tokens, block_size):
    queue = deque(free)
    needed = -(-num_tokens // block_size)
    if needed > len(queue):
        return free, None
    return queue, [queue.popleft() for _ in range(needed)]
