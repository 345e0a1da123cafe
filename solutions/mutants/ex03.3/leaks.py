"""Never gives the blocks of the thrown out back.

property: the blocks of the thrown out come back
told: preempt(running=[
"""


def preempt(running, waiting, free, block_size):
    running, waiting = list(running), list(waiting)
    if sum(request["computed"] == len(request["table"]) * block_size for request in running) > len(free):
        last = running.pop()
        waiting.insert(0, {**last, "computed": 0, "table": []})
    return running, waiting, free
