"""Answers with ids where requests were asked for.

property: the answer has the right form
told: should be a request, a dict; 0 is an int
"""


def preempt(running, waiting, free, block_size):
    running, waiting = list(running), list(waiting)
    while sum(request["computed"] == len(request["table"]) * block_size for request in running) > len(free):
        last = running.pop()
        free = release(free, last["table"])  # noqa: F821
        waiting.insert(0, {**last, "computed": 0, "table": []})
    return [request["id"] for request in running], waiting, free
