"""Keeps when each slot is free and jumps from one rider to the next, as a simulator does.

property: the loop is made of refill and step
told: 0 calls of refill and 0 calls of step
"""


def continuous_batching(lengths, arrivals, slots):
    free_at, ttft = [0] * slots, []
    for length, arrival in zip(lengths, arrivals):
        slot = min(range(slots), key=free_at.__getitem__)
        start = max(free_at[slot], int(arrival), ttft[-1][0] if ttft else 0)
        free_at[slot] = start + int(length)
        ttft.append((start, start + 1 - int(arrival)))
    return [each for _, each in ttft]
