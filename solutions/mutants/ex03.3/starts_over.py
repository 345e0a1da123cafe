"""Computes everyone again as soon as one is thrown out.

property: whoever stays on board keeps all that they have
told: preempt(running=[
"""


def preempt(running, waiting, free, block_size):
    running, waiting = list(running), list(waiting)
    while sum(request["computed"] == len(request["table"]) * block_size for request in running) > len(free):
        last = running.pop()
        free = release(free, last["table"])  # noqa: F821
        waiting.insert(0, {**last, "computed": 0, "table": []})
    if free and waiting and waiting[0]["computed"] == 0 and waiting[0]["generated"]:
        running = [{**request, "computed": 0} for request in running]
    return running, waiting, free
