"""Takes requests off the caller's own waitlist.

property: the inputs are left as they were
told: It changed its input waitlist from [0] to [].
"""


def admit(waitlist, prompts, running, slots, num_free, num_blocks, block_size, watermark, token_budget):
    needed = [-(-prompt // block_size) for prompt in prompts]
    rejected = [request for request in waitlist if needed[request] > num_blocks - 1]
    for request in rejected:
        waitlist.remove(request)
    budget = token_budget - running
    boarded = []
    while waitlist:
        request = waitlist[0]
        kept = watermark if running else 0
        if running == slots or budget == 0 or needed[request] > num_free - kept:
            break
        waitlist.pop(0)
        tokens = min(prompts[request], budget)
        boarded.append((request, tokens))
        running, budget, num_free = running + 1, budget - tokens, num_free - needed[request]
    return boarded, waitlist, rejected
