"""Asks for a block when prompt and generated tokens fill one, though the last of them is not stored yet.

property: nobody is thrown out without need
told: preempt(running=[
"""


def preempt(running, waiting, free, block_size):
    running, waiting = list(running), list(waiting)
    while sum((request["prompt"] + request["generated"]) % block_size == 0 for request in running) > len(
        free
    ):
        last = running.pop()
        free = release(free, last["table"])  # noqa: F821
        waiting.insert(0, {**last, "computed": 0, "table": []})
    return running, waiting, free
