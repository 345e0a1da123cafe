"""A ride to the model's last position on a CPU. Prints the answers, and what a position beyond it does: JSON.

NUMBA_BOUNDSCHECK=1 NUMBA_CACHE_DIR=/empty python tests/bounded_ride.py FOLDER
"""

import json
import sys

import numpy as np
import torch

from lessonlib.engine import LLM, SamplingParams
from lessonlib.engine.cpu import loops

DTYPES = ("float32", "bfloat16")


def answers(folder: str, dtype: str) -> list[list[int]]:
    """Long and short prompts in chunks, half of them to the end of the context, in memory that is too small for all."""
    llm = LLM(
        folder,
        device="cpu",
        dtype=dtype,
        attention="native",
        load_format="dummy",
        skip_tokenizer_init=True,
        max_num_seqs=3,
        max_num_batched_tokens=24,
        num_blocks=14,
        enable_prefix_caching=True,
    )
    prompts = [[5 + number] * length for number, length in enumerate((1, 15, 16, 17, 100, 127, 40))]
    params = [
        SamplingParams(temperature=0, max_tokens=None if len(prompt) > 99 else 20, ignore_eos=True)
        for prompt in prompts
    ]
    outputs = llm.generate(prompts, params, use_tqdm=False)
    assert [len(each.outputs[0].token_ids) for each in outputs] == [20, 20, 20, 20, 28, 1, 20]
    return [each.outputs[0].token_ids for each in outputs]


def beyond(positions: int, slots: int) -> str:
    """What the loop does with one position or slot too many: an error's name, or nothing."""
    heads, table = torch.zeros(1, 4, 8), torch.zeros(16, 8)
    cache = torch.zeros(4, 2, 1, 8)
    at = [np.array([value], dtype=np.int32) for value in (positions, slots)]
    try:
        loops.rotate_and_store(loops.array(heads), loops.array(table), *at, loops.array(cache))
    except IndexError as error:
        return type(error).__name__
    return ""


if __name__ == "__main__":
    torch.set_num_threads(1)
    inside, too_far, no_slot = beyond(15, 3), beyond(16, 3), beyond(15, 4)
    told = {dtype: answers(sys.argv[1], dtype) for dtype in DTYPES}
    json.dump({"answers": told, "beyond": [inside, too_far, no_slot]}, sys.stdout)
