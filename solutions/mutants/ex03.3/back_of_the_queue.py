"""Sends the thrown out to the end of the queue.

property: the thrown out go to the front of the queue, in the order in which they rode
told: preempt(running=[
"""


def preempt(running, waiting, free, block_size):
    running, waiting = list(running), list(waiting)
    while sum(request["computed"] == len(request["table"]) * block_size for request in running) > len(free):
        last = running.pop()
        free = release(free, last["table"])  # noqa: F821
        waiting.append({**last, "computed": 0, "table": []})
    return running, waiting, free
