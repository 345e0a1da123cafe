"""Which server schedules by which rule: one table, by server and version.

A row names a policy of `policies` that models the rule; the policy's docstring has its source and what is left out.
The words for what a policy decides are fixed, so that a test can hold each row against the policy itself.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass, fields

# When a request is admitted.
ANY_SLOT = "a slot is free"
EMPTY_BATCH = "the batch has ended"
ENOUGH_WAIT = "enough wait, or 20 steps have passed"
# Which one comes first.
ARRIVAL = "arrival"
LONGEST_PREFIX = "longest cached prefix"
LEAST_SERVED = "the user served least"
SHORTEST = "shortest expected answer"
DEADLINE = "earliest deadline"
# How prompts are computed.
ALL_FIRST = "all of the batch, then decoding"
WHOLE_BESIDE = "whole, beside decodes"
WHOLE_ALONE = "whole, decoding pauses"
CHUNKS_BESIDE = "in chunks, beside decodes"
CHUNKS_ALONE = "in chunks, decoding pauses"
# What memory a request needs to be admitted.
PROMPT = "its prompt"
FIRST_CHUNK = "its first chunk"
WHOLE_ANSWER = "prompt and max_tokens"
LONGEST_SEQUENCE = "the longest sequence"
PROMPT_AND_SHARE = "prompt, and a share of what all may write"
# What happens when memory runs short.
NEVER = "it cannot"
LAST_AGAIN = "the last waits and computes again"
# What the rule has to be told, beside each prompt.
NOTHING = "nothing"
LIMIT = "max_tokens"
LENGTHS = "each answer's length, predicted"
USERS = "each request's user"
TIERS = "each request's tier"


@dataclass(frozen=True)
class Rule:
    """One server's rule; by default that of vLLM V1.

    Attributes:
        server, version: whose it is.
        policy: the name of the policy that models it.
        first: which of those that wait is admitted next.
        admits: when.
        prompts: how they are computed.
        memory: what has to be free for it.
        short: what happens when memory runs short later.
        knows: what the rule must be told.
    """

    server: str
    version: str
    policy: str
    first: str = ARRIVAL
    admits: str = ANY_SLOT
    prompts: str = CHUNKS_BESIDE
    memory: str = PROMPT
    short: str = LAST_AGAIN
    knows: str = NOTHING


RESERVES = {"memory": WHOLE_ANSWER, "short": NEVER, "knows": LIMIT}
RULES = (
    Rule("generate", "Transformers 4 and 5", "static", admits=EMPTY_BATCH, prompts=ALL_FIRST, **RESERVES),
    Rule(
        "FasterTransformer", "5.3, behind Triton", "static", admits=EMPTY_BATCH, prompts=ALL_FIRST, **RESERVES
    ),
    Rule("Orca", "OSDI 2022, Algorithm 1", "orca", prompts=WHOLE_BESIDE, **RESERVES),
    Rule(
        "Orca (Max)",
        "of the vLLM paper",
        "orca-max",
        prompts=WHOLE_BESIDE,
        memory=LONGEST_SEQUENCE,
        short=NEVER,
    ),
    Rule("vLLM", "2023, before V1", "prefill-first", prompts=WHOLE_ALONE),
    Rule("vLLM", "V1, to 0.32", "vllm"),
    Rule("vLLM", "V1, --scheduling-policy priority", "sla", first=DEADLINE, knows=TIERS),
    Rule("TGI", "1 and 2", "tgi", admits=ENOUGH_WAIT, prompts=WHOLE_ALONE, **RESERVES),
    Rule("TGI", "3", "tgi-3", **RESERVES),
    Rule("TensorRT-LLM", "GUARANTEED_NO_EVICT", "guaranteed-no-evict", prompts=WHOLE_BESIDE, **RESERVES),
    Rule("TensorRT-LLM", "MAX_UTILIZATION", "max-utilization", prompts=WHOLE_BESIDE),
    Rule("DeepSpeed-FastGen", "MII 0.2, SplitFuse", "splitfuse", memory=FIRST_CHUNK),
    Rule("Sarathi-Serve", "OSDI 2024", "sarathi"),
    Rule(
        "SGLang",
        "0.4, 0.5: lpm",
        "sglang",
        LONGEST_PREFIX,
        ANY_SLOT,
        CHUNKS_ALONE,
        PROMPT_AND_SHARE,
        knows=LIMIT,
    ),
    Rule("VTC", "Sheng et al., OSDI 2024", "fair-shares", first=LEAST_SERVED, knows=USERS),
    Rule("shortest first", "predicted: Fu et al., 2024", "sjf", first=SHORTEST, knows=LENGTHS),
)
"""Every server's rule that the course models. `continuous` has no row: it is what they have in common."""


def rule_cells() -> list[list[str]]:
    """`RULES` as rows of text, the titles first."""
    titles = [
        "server",
        "version",
        "policy",
        "comes first",
        "admitted when",
        "prompts",
        "needs free",
        "memory short",
        "told",
    ]
    assert len(titles) == len(fields(Rule))
    return [titles, *(list(astuple(rule)) for rule in RULES)]
