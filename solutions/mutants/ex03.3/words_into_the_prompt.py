"""Makes the generated tokens part of the prompt: the answer will be too long.

property: generated tokens are kept
told: 'generated': 0
"""


def preempt(running, waiting, free, block_size):
    running, waiting = list(running), list(waiting)
    while sum(request["computed"] == len(request["table"]) * block_size for request in running) > len(free):
        last = running.pop()
        free = release(free, last["table"])  # noqa: F821
        waiting.insert(
            0,
            {
                **last,
                "prompt": last["prompt"] + last["generated"],
                "generated": 0,
                "computed": 0,
                "table": [],
            },
        )
    return running, waiting, free
