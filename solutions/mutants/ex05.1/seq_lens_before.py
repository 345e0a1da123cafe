"""Forgets this step's tokens in seq_lens: nobody sees themselves.

property: attention sees what was stored before and this step's tokens
told: step_inputs(rows=[{
"""


def step_inputs(rows, block_size):
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
        seq_lens.append(computed)
    widest = max(len(row["block_table"]) for row in rows)
    block_table = [row["block_table"] + [0] * (widest - len(row["block_table"])) for row in rows]
    return token_ids, positions, slot_mapping, query_start_loc, seq_lens, block_table
