"""Takes ignore_eos for a wish to ignore stop tokens too.

property: a stop token ends an answer, whatever else is ignored
told: finish(running=[
"""


def finish(running, params, sampled, eos_token_ids, free_slots, free):
    stay, finished = [], []
    for request in running:
        if request["num_computed_tokens"] < len(request["token_ids"]):
            stay.append(request)
            continue
        token, ends = sampled[request["id"]], params[request["id"]]
        token_ids = [*request["token_ids"], token]
        answer = token_ids[request["prompt_tokens"] :]
        stops = token in [*ends["stop_token_ids"], *eos_token_ids] and not ends["ignore_eos"]
        if stops or len(answer) == ends["max_tokens"]:
            finished.append((request["id"], answer, "stop" if stops else "length"))
            free_slots = sorted([*free_slots, request["slot"]])
            free = free + request["block_table"][::-1]
        else:
            stay.append({**request, "token_ids": token_ids})
    return stay, finished, free_slots, free
