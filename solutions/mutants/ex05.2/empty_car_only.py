"""Boards only when nobody is on board.

property: the budget is used as far as it goes
told: share_budget(running=[
"""


def share_budget(running, waiting, slots, token_budget):
    writing = [request for request in running if request["num_computed_tokens"] >= request["prefill_target"]]
    reading = [request for request in running if request["num_computed_tokens"] < request["prefill_target"]]
    boarding = waiting[:slots] if not running else []
    shares = []
    for request in writing + reading + boarding:
        num_tokens = request["prompt_tokens"] + request["num_output_tokens"]
        tokens = min(num_tokens - request["num_computed_tokens"], token_budget)
        if tokens:
            shares.append((request["id"], tokens))
            token_budget -= tokens
    return shares
