"""Waits until there is memory.

property: every call comes back
told: No answer within
"""


def admit(waitlist, prompts, running, slots, num_free, num_blocks, block_size, watermark, token_budget):
    boarded, budget = [], token_budget - running
    while waitlist and running < slots and budget:
        request = waitlist[0]
        if -(-prompts[request] // block_size) <= num_free:
            boarded.append((request, min(prompts[request], budget)))
            budget -= boarded[-1][1]
            running, waitlist = running + 1, waitlist[1:]
    return boarded, waitlist, []
