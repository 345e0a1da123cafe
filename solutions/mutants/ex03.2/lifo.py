"""Boards whoever came last.

property: nobody overtakes
told: admit(waitlist=[0, 1]
"""


def admit(waitlist, prompts, running, slots, num_free, num_blocks, block_size, watermark, token_budget):
    needed = [-(-prompt // block_size) for prompt in prompts]
    rejected = [request for request in waitlist if needed[request] > num_blocks - 1]
    waitlist = [request for request in waitlist if request not in rejected]
    budget = token_budget - running
    boarded = []
    for request in waitlist[::-1]:
        kept = watermark if running else 0
        if running == slots or budget == 0 or needed[request] > num_free - kept:
            break
        tokens = min(prompts[request], budget)
        boarded.append((request, tokens))
        running, budget, num_free = running + 1, budget - tokens, num_free - needed[request]
    return boarded, waitlist[: len(waitlist) - len(boarded)], rejected
