"""Models and prompts that the engine's tests share."""

import json

import torch

from lessonlib.engine.inputs import StepInputs
from lessonlib.workload import questions

TINY = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 256,
    "hidden_size": 128,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "eos_token_id": 2,
}


def write_config(folder, **changes):
    """A folder with a config.json alone, for load_format="dummy"."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**TINY, **changes}))
    return folder


CHAT_TEMPLATE = (
    "{% for message in messages %}<{{ message.role }}>{{ message.content }}{% if not loop.last or not "
    "continue_final_message %}\n{% endif %}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)


def write_tokenizer(folder):
    """A tokenizer beside it: token number i is byte number i, of 256, and 2 ends an answer."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = bytes_to_unicode()
    whole = Tokenizer(models.BPE(vocab={letter: byte for byte, letter in letters.items()}, merges=[]))
    whole.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    whole.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=whole, eos_token=letters[2])
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained(folder)
    return folder


def conversations(count=64):
    """Chats of varied length: each asks a question, after none to four others."""
    asked = questions(count)
    return [
        [{"role": "user", "content": " ".join(asked[max(0, place - place % 5) : place + 1])}]
        for place in range(count)
    ]


def one_prompt(ids, block_size=16, device="cpu"):
    """A step that reads one whole prompt into blocks 1, 2, … and gives logits for each of its tokens."""
    count = len(ids)

    def int32(values):
        return torch.tensor(values, dtype=torch.int32, device=device)

    return StepInputs(
        num_decodes=0,
        token_ids=int32(list(ids)),
        positions=int32(range(count)),
        slot_mapping=int32(range(block_size, block_size + count)),
        seq_lens=int32([count]),
        query_start_loc=int32([0, count]),
        sampled=int32(range(count)),
        slots=int32([0] * count),
        block_table=int32([list(range(1, -(-count // block_size) + 1))]),
    )


def free_and_unwritten(scheduler):
    """Free blocks that no cached prefix may still be found in: whoever reads them reads what is not theirs."""
    pool = scheduler.kv_cache.pool
    return [block for block in pool.free_blocks() if pool.hashes[block] is None]
