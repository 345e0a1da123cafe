"""Takes each token for there at the start of its step, where it divides the time by the tokens.

property: the time per token is the mean gap between the ends of its steps
told: goodput(slots=
"""


def goodput(slots, steps, requests, ttft_limit, tpot_limit):
    tokens, kept = 0, []
    for place, request in enumerate(requests):
        given_in = [step for first, count in request["decode"] for step in range(first, first + count)]
        tokens += len(given_in)
        if not request["finished"]:
            continue
        starts = [steps[step][0] for step in given_in]
        ttft = sum(steps[given_in[0]]) - request["arrival"]
        tpot = (starts[-1] - starts[0]) / (len(starts) - 1) if len(starts) > 1 else 0.0
        if ttft <= ttft_limit and tpot <= tpot_limit:
            kept.append(place)
    span = steps[-1][0] + steps[-1][1] - steps[0][0]
    return tokens / (slots * len(steps)), kept, len(kept) / span
