"""Makes all tables as wide as the first one.

property: every table is as wide as the widest
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
        seq_lens.append(seq_len)
    widest = max(len(row["block_table"]) for row in rows)
    width = len(rows[0]["block_table"])
    block_table = [(row["block_table"] + [0] * widest)[:width] for row in rows]
    return token_ids, positions, slot_mapping, query_start_loc, seq_lens, block_table
