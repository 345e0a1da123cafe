"""Puts the blocks back in the order of the table.

property: freed blocks go to the end of the list, the last one first
told: preempt(running=[
"""


def preempt(running, waiting, free, block_size):
    running, waiting = list(running), list(waiting)
    while sum(request["computed"] == len(request["table"]) * block_size for request in running) > len(free):
        last = running.pop()
        free = free + last["table"]
        waiting.insert(0, {**last, "computed": 0, "table": []})
    return running, waiting, free
