"""Exercise 05: what an engine does around its model, one step at a time. Plain Python: integers and lists.

A request has tokens, and some of them are computed: their keys and values are stored. A step lets the second
number catch up with the first, for many requests at once. By many tokens where somebody reads; by one where
somebody writes, since the token that was given last is all that is missing then. A step is shared out
(ex05.2), laid out as one flat batch for the model (ex05.1), and once it has run, everyone hears their token
and some are done (ex05.3).

A request is a dict. Each part is shown what it needs of these:

  id                    its number
  slot                  the slot it rides in
  token_ids             its prompt, then the tokens that it was given
  prompt_tokens         how many of its tokens are the prompt's
  num_output_tokens     how many it was given
  num_computed_tokens   how many, from the first on, are computed
  prefill_target        how many it had when it boarded; until they are computed, it is reading
  block_table           its blocks, in order of position, with room for all that is computed or planned

Block 0 is the null block: nobody holds it. A free list is that of exercise 03: freed blocks go to its end, of
one request's blocks the last before the first.

Each part returns something new and leaves what it was given as it was: the next step is planned from that.

Check your work with `lesson check ex05` in a terminal, or with `check("ex05")` in a notebook cell. The inputs
are fresh each time. What has to hold, besides plain good manners (an answer of the right form, inputs left as
they were, no call that goes on forever):

ex05.1 step_inputs
  - a row has as many tokens as it was given for this step
  - a row goes on with the first token that is not computed
  - a position counts from the beginning of the request, not of the batch
  - no two tokens are stored in one place
  - nobody writes into a block of somebody else
  - a token is stored where its position is in the block table
  - query_start_loc begins at 0 and ends at the number of tokens
  - a row's tokens lie between its two places in query_start_loc
  - attention sees what was stored before and this step's tokens
  - every table is as wide as the widest
  - a table is its request's blocks, then null blocks

ex05.2 share_budget
  - whoever is served is here, and is served once
  - a step computes no more tokens than its budget
  - nobody computes what is computed already, or what is not there yet
  - no prompt holds up those who are writing
  - those who are writing come first in the batch
  - everyone on board has a slot
  - what was generated before a preemption is computed again
  - nobody overtakes
  - the budget is used as far as it goes

ex05.3 finish
  - whoever left while the step was in flight gets nothing
  - nobody is lost and nobody is counted twice
  - a part of a prompt gives no token
  - whoever was computed to the end gets their token, the last one too
  - the model's end token ends an answer, unless it is to be ignored
  - a stop token ends an answer, whatever else is ignored
  - max_tokens ends an answer, and nothing else does
  - the reason is "stop" where a token ended it, "length" where only the count did
  - those who stay keep all that they have
  - the slot of whoever leaves is free, the lowest first
  - no block is lost and none is held twice
  - freed blocks go to the end of the list, the last one first
"""


def step_inputs(
    rows: list[dict], block_size: int
) -> tuple[list[int], list[int], list[int], list[int], list[int], list[list[int]]]:
    """ex05.1: one step's rows as one flat batch, with nothing between one row and the next.

    The model computes all tokens of the batch as if they were one long text. What tells them apart is what
    stands beside them: each token's position, the place in memory where its key and value go, and where one
    row ends and the next one begins.

    Args:
        rows: whoever computes something in this step, at least one; those who write come first, then those
            who read, but the layout is the same for all. A row is a dict with token_ids, num_computed_tokens
            and block_table, as above, and

              num_scheduled_tokens   how many tokens it computes in this step, from the first that is not
                                     computed on; of a long prompt that is only a part

        block_size: tokens a block.

    Returns:
        (token_ids, positions, slot_mapping, query_start_loc, seq_lens, block_table)

          token_ids         of every token in the batch, row after row
          positions         of every token, counted from 0 at the beginning of its request
          slot_mapping      of every token: block × block_size + place in the block
          query_start_loc   where each row begins in the lists above, and at the end where the last one ends
          seq_lens          of every row: how many tokens are stored once this step's are
          block_table       the table of every row, filled up with null blocks to the length of the longest
    """
    # >>> solution
    # stub: raise NotImplementedError("ex05.1: step_inputs is not written yet")
    token_ids, positions, slot_mapping, query_start_loc, seq_lens = [], [], [], [0], []
    for row in rows:
        computed, table = row["num_computed_tokens"], row["block_table"]
        seq_len = computed + row["num_scheduled_tokens"]
        token_ids += row["token_ids"][computed:seq_len]
        positions += range(computed, seq_len)
        slot_mapping += [
            table[at // block_size] * block_size + at % block_size for at in range(computed, seq_len)
        ]
        query_start_loc.append(len(token_ids))
        seq_lens.append(seq_len)
    widest = max(len(row["block_table"]) for row in rows)
    block_table = [row["block_table"] + [0] * (widest - len(row["block_table"])) for row in rows]
    return token_ids, positions, slot_mapping, query_start_loc, seq_lens, block_table
    # <<< solution


def share_budget(
    running: list[dict], waiting: list[dict], slots: int, token_budget: int
) -> list[tuple[int, int]]:
    """ex05.2: how many tokens each request computes in one step. Memory is no question here.

    Those who write come first: each gets the one token that they lack, before any prompt takes its share.
    Then those on board who still read, then those who board, in the order in which they stand here. Each
    takes all that it lacks, or what is left of the budget; where nothing is left, the step is full, and
    nobody boards for nothing. So a prompt may be read over several steps, and one that is cut short keeps
    everyone behind it waiting.

    A request that was thrown out has lost what was computed, but not its words. When it boards again, it
    reads both, prompt and generated tokens, and is no writer until it has.

    Args:
        running: requests on board, first served first. A request is a dict with id, prompt_tokens,
            num_output_tokens, num_computed_tokens and prefill_target, as above.
        waiting: requests that wait, next to board first. Nothing of theirs is computed and their
            prefill_target is 0, since they have not boarded. At least one request is on board or waiting.
        slots: how many may be on board at once.
        token_budget: tokens that the step may compute, at least one a slot.

    Returns:
        (id, tokens) of each request that computes something, in the order of the batch: those who write,
        those who read, those who board.
    """
    # >>> solution
    # stub: raise NotImplementedError("ex05.2: share_budget is not written yet")
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
    return shares
    # <<< solution


def finish(
    running: list[dict],
    params: dict[int, dict],
    sampled: dict[int, int],
    eos_token_ids: list[int],
    free_slots: list[int],
    free: list[int],
) -> tuple[list[dict], list[tuple[int, list[int], str]], list[int], list[int]]:
    """ex05.3: what a step that has run gives, and who leaves.

    The model gives one token for each row of its batch, the one that follows the last token of the row. For
    whoever has more of their tokens to compute it means nothing: it would follow the middle of their prompt.
    For everyone else it is their next token, and it may be their last.

    Whoever arrives leaves at once: their slot and their blocks are there for the very next step.

    Args:
        running: requests on board, in the order of the batch. A request is a dict with id, slot, token_ids,
            prompt_tokens, num_computed_tokens (this step's included) and block_table, as above. Some may have
            had no part in the step; they have more to compute.
        params: how the answer of each request on board ends, id → a dict:

              max_tokens       tokens that it is given at most; nobody on board has them yet
              stop_token_ids   tokens that end it
              ignore_eos       whether it goes on after the model's own end token

        sampled: the token of each row, id → token. It names some who are no longer on board: they left, by
            their own will or by an end token, while the step was in flight, and their slot and blocks may be
            somebody else's by now.
        eos_token_ids: the model's own end tokens.
        free_slots: slots in which nobody rides, the lowest first.
        free: the free blocks, as above.

    Returns:
        (running, finished, free_slots, free) afterwards. `running` are those who stay, in the same order and
        as they were but for their new token. `finished` has (id, tokens that it was given, the last one
        included, reason) of each request that leaves, in the same order. The reason is "stop" where an end
        token or a stop token ended the answer, even the last one that max_tokens allows, and otherwise
        "length".
    """
    # >>> solution
    # stub: raise NotImplementedError("ex05.3: finish is not written yet")
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
    return stay, finished, free_slots, free
    # <<< solution
