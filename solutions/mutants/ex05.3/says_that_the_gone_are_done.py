"""Reports those who are gone once more.

property: whoever left while the step was in flight gets nothing
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
        stops = token in ends["stop_token_ids"] or (token in eos_token_ids and not ends["ignore_eos"])
        if stops or len(answer) == ends["max_tokens"]:
            finished.append((request["id"], answer, "stop" if stops else "length"))
            free_slots = sorted([*free_slots, request["slot"]])
            free = free + request["block_table"][::-1]
        else:
            stay.append({**request, "token_ids": token_ids})
    on_board = [request["id"] for request in running]
    finished += [(name, [token], "abort") for name, token in sampled.items() if name not in on_board]
    return stay, finished, free_slots, free
