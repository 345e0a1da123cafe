"""Divides by the tokens, not by the times between them.

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
        times = [steps[step][0] + steps[step][1] for step in given_in]
        ttft = times[0] - request["arrival"]
        tpot = (times[-1] - times[0]) / len(times) if len(times) > 1 else 0.0
        if ttft <= ttft_limit and tpot <= tpot_limit:
            kept.append(place)
    span = steps[-1][0] + steps[-1][1] - steps[0][0]
    return tokens / (slots * len(steps)), kept, len(kept) / span
