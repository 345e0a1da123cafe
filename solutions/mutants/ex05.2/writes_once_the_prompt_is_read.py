"""Takes a request for a writer as soon as its prompt is computed again.

property: what was generated before a preemption is computed again
told: share_budget(running=[
"""


def share_budget(running, waiting, slots, token_budget):
    writing = [request for request in running if request["num_computed_tokens"] >= request["prompt_tokens"]]
    reading = [request for request in running if request["num_computed_tokens"] < request["prompt_tokens"]]
    boarding = waiting[: slots - len(running)]
    shares = []
    for request in writing + reading + boarding:
        num_tokens = request["prompt_tokens"] + request["num_output_tokens"]
        tokens = min(1 if request in writing else num_tokens - request["num_computed_tokens"], token_budget)
        if tokens:
            shares.append((request["id"], tokens))
            token_budget -= tokens
    return shares
