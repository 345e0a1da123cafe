"""Sets a token aside for each writer, but leaves the rows in the order of the car.

property: those who are writing come first in the batch
told: share_budget(running=[
"""


def share_budget(running, waiting, slots, token_budget):
    writing = [request for request in running if request["num_computed_tokens"] >= request["prefill_target"]]
    reading = [request for request in running if request["num_computed_tokens"] < request["prefill_target"]]
    boarding = waiting[: slots - len(running)]
    shares = []
    for request in writing + reading + boarding:
        num_tokens = request["prompt_tokens"] + request["num_output_tokens"]
        tokens = min(num_tokens - request["num_computed_tokens"], token_budget)
        if tokens:
            shares.append((request["id"], tokens))
            token_budget -= tokens
    order = [request["id"] for request in running + waiting]
    return sorted(shares, key=lambda share: order.index(share[0]))
