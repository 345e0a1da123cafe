"""Frees nothing, and goes on as long as memory is short.

property: no call raises an error
told: IndexError: pop from empty list
"""


def preempt(running, waiting, free, block_size):
    running, waiting = list(running), list(waiting)
    while (
        sum(request["computed"] == len(request["table"]) * block_size for request in running) > len(free)
        or len(free) == 0
    ):
        last = running.pop()
        waiting.insert(0, {**last, "computed": 0, "table": []})
    return running, waiting, free
