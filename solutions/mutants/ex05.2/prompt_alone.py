"""Forgets that a request that rode before has words to compute too.

property: what was generated before a preemption is computed again
told: share_budget(running=[
"""


def share_budget(running, waiting, slots, token_budget):
    writing = [request for request in running if request["num_computed_tokens"] >= request["prefill_target"]]
    reading = [request for request in running if request["num_computed_tokens"] < request["prefill_target"]]
    boarding = waiting[: slots - len(running)]
    shares = []
    for request in writing + reading + boarding:
        num_tokens = request["prompt_tokens"] + (request["num_output_tokens"] if request in writing else 0)
        tokens = min(num_tokens - request["num_computed_tokens"], token_budget)
        if tokens > 0:
            shares.append((request["id"], tokens))
            token_budget -= tokens
    return shares
