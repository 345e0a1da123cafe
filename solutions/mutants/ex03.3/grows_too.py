"""Gives out the blocks at once: that was for `append` to do.

property: whoever stays on board keeps all that they have
told: preempt(running=[
"""


def preempt(running, waiting, free, block_size):
    running, waiting = list(running), list(waiting)
    while sum(request["computed"] == len(request["table"]) * block_size for request in running) > len(free):
        last = running.pop()
        free = release(free, last["table"])  # noqa: F821
        waiting.insert(0, {**last, "computed": 0, "table": []})
    running = [dict(request) for request in running]
    for request in running:
        if request["computed"] == len(request["table"]) * block_size:
            request["table"] = request["table"] + free[:1]
            free = free[1:]
    return running, waiting, free
