"""Takes whoever leaves off the list that it walks along, and passes over the next one.

property: whoever was computed to the end gets their token, the last one too
told: finish(running=[
"""


def finish(running, params, sampled, eos_token_ids, free_slots, free):
    stay, finished, running = [], [], list(running)
    for request in running:
        if request["num_computed_tokens"] < len(request["token_ids"]):
            stay.append(request)
            continue
        token, ends = sampled[request["id"]], params[request["id"]]
        token_ids = [*request["token_ids"], token]
        answer = token_ids[request["prompt_tokens"] :]
        stops = token in ends["stop_token_ids"] or (token in eos_token_ids and not ends["ignore_eos"])
        if stops or len(answer) == ends["max_tokens"]:
            finished.append((request["id"], answer, "stop" if stops else "length"))
            running.remove(request)
            free_slots = sorted([*free_slots, request["slot"]])
            free = free + request["block_table"][::-1]
        else:
            stay.append({**request, "token_ids": token_ids})
    kept = {request["id"]: request for request in stay}
    stay = [kept.get(request["id"], request) for request in running]
    return stay, finished, free_slots, free
