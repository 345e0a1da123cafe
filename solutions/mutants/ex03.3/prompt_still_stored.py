"""Computes only the generated tokens again.

property: what was computed is computed again
told: preempt(running=[
"""


def preempt(running, waiting, free, block_size):
    running, waiting = list(running), list(waiting)
    while sum(request["computed"] == len(request["table"]) * block_size for request in running) > len(free):
        last = running.pop()
        free = release(free, last["table"])  # noqa: F821
        waiting.insert(0, {**last, "computed": last["prompt"], "table": []})
    return running, waiting, free
