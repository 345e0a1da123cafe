"""Every scheduling policy of the course, each as what it decides differently from `Policy`.

`POLICIES` are models of published scheduling rules over one scheduler, not ports: each docstring says what is
modeled, where it is written down, and what is left out. `ABLATIONS` lie between two of them: each differs from its
neighbor by one decision, so that a measurement can tell what that decision is worth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lessonlib.errors import CourseError
from lessonlib.scheduling.policy import Policy, SchedulerView
from lessonlib.scheduling.request import RequestState
from lessonlib.trace import HeldBy


def whole_prompt(scheduler: SchedulerView, request: RequestState, num_new: int, budget: int) -> int:
    """All `num_new` tokens of a prompt if they fit in `budget`, else 0.

    A prompt longer than a whole step's budget is cut; otherwise it would wait for ever.
    """
    if num_new <= budget or request.is_running or num_new > scheduler.token_budget:
        return min(num_new, budget)
    return 0


def longest_sequence(scheduler: SchedulerView, request: RequestState) -> int:
    """Tokens of the model's longest sequence; where that is not known, the most that the request may store."""
    return request.most_stored_tokens if scheduler.max_model_len is None else scheduler.max_model_len


class Continuous(Policy):
    """Continuous batching at its plainest: `Policy` as it is.

    First come, first served, one token budget a step, prompts in chunks beside requests that decode: the
    iteration-level scheduling of Yu et al., "Orca", OSDI 2022, with the chunks of `SarathiServe`.
    """

    name = "continuous"


class StaticBatching(Policy):
    """The next batch is admitted when every request of the last one has finished.

    This is what servers that batch whole requests do, such as NVIDIA FasterTransformer behind Triton (the baseline
    of Yu et al., "Orca", OSDI 2022), and Hugging Face `generate`. Memory for every whole answer is set aside, so
    that a batch can always finish. A prompt longer than the step's budget is computed over several steps here;
    padding, and the compute it wastes, are left out.

    Args:
        fill: wait until every slot can be filled, while more requests are still to come.
    """

    name = "static"
    admits_without_budget = True
    work_conserving = False

    def __init__(self, fill: bool = False) -> None:
        self.fill = fill

    def may_admit(self, scheduler: SchedulerView) -> bool:
        if scheduler.running:
            return False
        full_batch = min(scheduler.slots, len(scheduler.waiting) + scheduler.still_to_come)
        return not self.fill or len(scheduler.waiting) >= full_batch

    def waits_for(self, scheduler: SchedulerView) -> HeldBy:
        return HeldBy.BATCH if scheduler.running else HeldBy.MORE_REQUESTS

    def reserve(self, scheduler: SchedulerView, request: RequestState) -> int:
        return request.most_stored_tokens


class Orca(Policy):
    """Iteration-level scheduling with K/V memory reserved for the longest answer that a request may give.

    Yu et al., "Orca: A Distributed Serving System for Transformer-Based Generative Models", OSDI 2022:
    batches are formed anew each iteration, prompts are computed whole beside requests that are decoding
    ("selective batching"), and a request is admitted only if its memory can be reserved for good: its `max_tokens`
    in Orca's Algorithm 1.
    """

    name = "orca"

    def reserve(self, scheduler: SchedulerView, request: RequestState) -> int:
        return request.most_stored_tokens

    def chunk(self, scheduler: SchedulerView, request: RequestState, num_new: int, budget: int) -> int:
        return whole_prompt(scheduler, request, num_new, budget)


class OrcaMax(Orca):
    """`Orca` with memory reserved for the model's longest sequence, whatever the request asks for.

    This is "Orca (Max)" in Kwon et al., SOSP 2023, whose authors could not run Orca itself. `simulation.contiguous`
    measures how much of such reservations is used.
    """

    name = "orca-max"

    def reserve(self, scheduler: SchedulerView, request: RequestState) -> int:
        return longest_sequence(scheduler, request)


class VLLM(Policy):
    """Paged memory, taken as it is needed; when it runs short, the last request is preempted and recomputed.

    Kwon et al., "Efficient Memory Management for Large Language Model Serving with PagedAttention", SOSP
    2023, in the form of vLLM V1's scheduler: chunked prefill, running requests first, no admission in a step
    that preempted. With its defaults it decides as `Continuous` does. Prefixes are shared if the scheduler was made
    with `prefix_caching`.

    Args:
        watermark: share of the blocks that an admission leaves free while others run: 0.01 in vLLM's first
            scheduler, 0 by default in V1.

    Raises:
        CourseError: for a share below 0 or above 1.
    """

    name = "vllm"

    def __init__(self, watermark: float = 0.0) -> None:
        if not 0 <= watermark <= 1:
            raise CourseError(f"a watermark of {watermark}: give a share of the blocks, 0 to 1")
        self.watermark_share = watermark

    def watermark(self, scheduler: SchedulerView) -> int:
        return int(self.watermark_share * scheduler.kv_cache.num_blocks)


class GuaranteedNoEvict(Policy):
    """A request is admitted only if its longest answer fits beside all the others', so each one can finish.

    NVIDIA TensorRT-LLM, capacity scheduler policy `GUARANTEED_NO_EVICT`, its default; prompts are computed whole,
    as without chunked context. TensorRT-LLM counts the blocks that requests may still need; here they are
    held from the start, which admits the same requests.
    """

    name = "guaranteed-no-evict"

    def reserve(self, scheduler: SchedulerView, request: RequestState) -> int:
        return request.most_stored_tokens

    def chunk(self, scheduler: SchedulerView, request: RequestState, num_new: int, budget: int) -> int:
        return whole_prompt(scheduler, request, num_new, budget)


class MaxUtilization(Policy):
    """Admit every request that fits now, and pause the last ones when memory runs short.

    NVIDIA TensorRT-LLM, capacity scheduler policy `MAX_UTILIZATION`; prompts are computed whole, as without
    chunked context, and no blocks are kept back. Paused requests are computed again.
    """

    name = "max-utilization"

    def chunk(self, scheduler: SchedulerView, request: RequestState, num_new: int, budget: int) -> int:
        return whole_prompt(scheduler, request, num_new, budget)


class PrefillFirstReserved(OrcaMax):
    """A freed slot is refilled at once, and decoding pauses while the new prompt is computed, whole.

    Agrawal et al. ("Sarathi-Serve", OSDI 2024) call such schedules prefill-prioritizing and count vLLM's first
    scheduler among them. Memory is reserved for the model's longest sequence, as by `OrcaMax`.
    """

    name = "prefill-first-reserved"

    def pauses_decode(self, scheduler: SchedulerView) -> bool:
        return True


class PrefillFirst(MaxUtilization):
    """`PrefillFirstReserved` with memory taken block by block, as by vLLM's first scheduler (Kwon et al., 2023)."""

    name = "prefill-first"

    def pauses_decode(self, scheduler: SchedulerView) -> bool:
        return True


class TGI(PrefillFirst):
    """Prompts wait until there are enough of them; then decoding pauses while they are computed.

    Hugging Face Text Generation Inference before version 3, or with chunking off (the project is in maintenance
    today), its router's batching task and launcher options: a new batch is prefilled when the queue holds
    `waiting_served_ratio` requests for each running one, or after `max_waiting_tokens` steps of decoding; memory for
    prompt and whole answer is set aside. A prompt longer than a whole step's budget is computed in chunks here.

    Raises:
        CourseError: for a negative ratio or number of steps.
    """

    name = "tgi"
    work_conserving = False

    def __init__(self, waiting_served_ratio: float = 0.3, max_waiting_tokens: int = 20) -> None:
        if waiting_served_ratio < 0:
            raise CourseError(f"a waiting_served_ratio of {waiting_served_ratio}: give 0 or more")
        if max_waiting_tokens < 0:
            raise CourseError(f"a max_waiting_tokens of {max_waiting_tokens}: give 0 or more")
        self.waiting_served_ratio, self.max_waiting_tokens = waiting_served_ratio, max_waiting_tokens

    def may_admit(self, scheduler: SchedulerView) -> bool:
        enough = int(self.waiting_served_ratio * len(scheduler.running))
        return len(scheduler.waiting) >= enough or scheduler.steps_since_prefill >= self.max_waiting_tokens

    def waits_for(self, scheduler: SchedulerView) -> HeldBy:
        return HeldBy.MORE_REQUESTS

    def reserve(self, scheduler: SchedulerView, request: RequestState) -> int:
        return request.most_stored_tokens


class TGI3(Policy):
    """Prompts in chunks beside requests that decode, the whole answer's memory set aside.

    Hugging Face Text Generation Inference from version 3 on, where the model supports chunking (`queue.rs` and
    `backend.rs` of its router): the ratio of `TGI` is not asked any more, the prefill budget is what the running batch
    leaves, and a request enters when prompt and `max_new_tokens` together can be allocated. Its prefix cache is the
    scheduler's.
    """

    name = "tgi-3"

    def reserve(self, scheduler: SchedulerView, request: RequestState) -> int:
        return request.most_stored_tokens


class DynamicSplitFuse(Policy):
    """Every step computes the same number of tokens: long prompts are split, short ones fused to fill it.

    DeepSpeed-FastGen: Holmes et al., "DeepSpeed-FastGen: High-throughput Text Generation for LLMs via MII and
    DeepSpeed-Inference", 2024. A request is admitted as soon as the first chunk of its prompt fits, and takes memory
    chunk by chunk. The number of tokens is the scheduler's budget.
    """

    name = "splitfuse"

    def reserve(self, scheduler: SchedulerView, request: RequestState) -> int:
        return 1


class SarathiServe(Policy):
    """Stall-free batching: prompts are computed in chunks so small that no decode waits long for its next token.

    Agrawal et al., "Taming Throughput-Latency Tradeoff in LLM Inference with Sarathi-Serve", OSDI 2024:
    decodes first, then chunks of prompts, within a budget of tokens that is derived from the latency target. Here
    that budget is `chunk_tokens` a step, decodes included, whatever larger budget the scheduler has: with d requests
    decoding, prompts get `chunk_tokens` - d. Where more than that decode, all of them still do, and no prompt does.

    Raises:
        CourseError: for a chunk of less than one token.
    """

    name = "sarathi"

    def __init__(self, chunk_tokens: int = 512) -> None:
        if chunk_tokens < 1:
            raise CourseError(f"chunks of {chunk_tokens} tokens: give at least 1")
        self.chunk_tokens = chunk_tokens

    def chunk(self, scheduler: SchedulerView, request: RequestState, num_new: int, budget: int) -> int:
        left_to_decodes = max(0, scheduler.token_budget - self.chunk_tokens)
        return min(num_new, budget - left_to_decodes)


class SarathiReserved(SarathiServe):
    """`SarathiServe` (Agrawal et al.) with memory reserved for the longest sequence, as by `OrcaMax` (Kwon et al.)."""

    name = "sarathi-reserved"

    def reserve(self, scheduler: SchedulerView, request: RequestState) -> int:
        return longest_sequence(scheduler, request)


class SGLang(Policy):
    """The longest cached prefix first, and room kept for a share of what may still be written.

    Zheng et al., "SGLang: Efficient Execution of Structured Language Model Programs", NeurIPS 2024, in the form of
    `schedule_policy.py` of SGLang 0.4 and 0.5 with `--schedule-policy lpm`: of those that wait the one with the most
    tokens in the prefix cache comes first, and with more than 128 in the queue, or without that cache, the one that
    came first. Prompts go before decodes. A request is admitted if its prompt fits beside `new_token_ratio` of the
    tokens that the running ones may still write, and its own; so memory may run short, and the last one admitted is
    preempted.

    Left out: SGLang's ratio falls from 0.7 to about 0.1 in 600 steps and is set anew when memory ran short; here it
    stays. It preempts the request with the fewest tokens written. Its cache is a radix tree, here hashes of blocks.
    There is no bound on starvation: a request whose prefix nobody shares waits as long as others come whose prefix is
    cached, until 128 wait.

    Args:
        new_token_ratio: share of the tokens still allowed that is expected.

    Raises:
        CourseError: for a share below 0 or above 1.
    """

    name = "sglang"
    longest_sorted, most_expected = 128, 4096  # as in SGLang

    def __init__(self, new_token_ratio: float = 0.7) -> None:
        if not 0 <= new_token_ratio <= 1:
            raise CourseError(f"a new_token_ratio of {new_token_ratio}: give a share of the tokens, 0 to 1")
        self.new_token_ratio = new_token_ratio
        self._newcomer: RequestState | None = None

    def choose(self, scheduler: SchedulerView) -> RequestState:
        request = scheduler.waiting.peek()
        if scheduler.kv_cache.prefix_caching and len(scheduler.waiting) <= self.longest_sorted:
            cached = scheduler.kv_cache.cached_prefix
            request = max(scheduler.waiting.in_order(), key=lambda other: len(cached(other)))
        self._newcomer = request
        return request

    def watermark(self, scheduler: SchedulerView) -> int:
        blocks_for = scheduler.kv_cache.blocks_for
        expected = [int(self.new_token_ratio * self._still_allowed(request)) for request in scheduler.running]
        own = self._still_allowed(self._newcomer) if self._newcomer else 0
        return sum(map(blocks_for, expected)) + blocks_for(own)

    def _still_allowed(self, request: RequestState) -> int:
        return min(request.max_tokens - request.num_output_tokens, self.most_expected)

    def pauses_decode(self, scheduler: SchedulerView) -> bool:
        return True


class FairShares(Policy):
    """The user who has been served least comes first.

    Sheng et al., "Fairness in Serving Large Language Models", OSDI 2024, the Virtual Token Counter: each user has a
    counter of tokens served, where a token written counts twice as much as one read, and the next request is one of
    the user with the smallest. Who comes back after a pause starts at the smallest counter of those who are here, so
    that nobody saves service up. A user is a `salt`. No request's length need be known.

    The bound on starvation: while two users both have requests waiting, the tokens they are served, so weighted,
    differ by at most twice the larger of a longest prompt and a memory full of written tokens. One user's own requests
    are served in order of arrival. Preempted work is not counted again.

    The counters are kept here: give each scheduler a policy of its own.

    Args:
        input_weight, output_weight: what a token of a prompt and one of an answer count.

    Raises:
        CourseError: for a negative weight.
    """

    name = "fair-shares"

    def __init__(self, input_weight: float = 1.0, output_weight: float = 2.0) -> None:
        if min(input_weight, output_weight) < 0:
            raise CourseError(f"weights of {input_weight} and {output_weight}: give 0 or more")
        self.input_weight, self.output_weight = input_weight, output_weight
        self._counters: dict[str, float] = {}  # of requests that are done, with what a user was lifted by
        self._requests: dict[str, list[RequestState]] = {}  # of each user, those that are not done

    def rank(self, request: RequestState) -> float:
        user = request.salt
        here = [self.served(other) for other in list(self._requests) if self._is_here(other)]
        if here and not self._is_here(user):
            self._counters[user] = max(self.served(user), min(here))
        self._requests.setdefault(user, []).append(request)
        return 0.0

    def choose(self, scheduler: SchedulerView) -> RequestState:
        waiting = scheduler.waiting.in_order()
        served = {user: self.served(user) for user in {request.salt for request in waiting}}
        return min(waiting, key=lambda request: served[request.salt])

    def served(self, user: str) -> float:
        """A user's counter: weighted tokens read and written for it."""
        requests = self._requests.get(user, [])
        done = sum(self._service(request) for request in requests if request.is_done)
        self._counters[user] = self._counters.get(user, 0.0) + done
        self._requests[user] = [request for request in requests if not request.is_done]
        return self._counters[user] + sum(map(self._service, self._requests[user]))

    def _is_here(self, user: str) -> bool:
        return any(not request.is_done for request in self._requests.get(user, ()))

    def _service(self, request: RequestState) -> float:
        was_admitted = request.is_running or request.num_output_tokens or request.num_preemptions
        prompt = self.input_weight * request.prompt_tokens if was_admitted else 0.0
        return prompt + self.output_weight * request.num_output_tokens


class ShortestJobFirst(Policy):
    """Requests with short answers are admitted before those with long ones, which do not wait for ever.

    Shortest job first gives the least mean waiting time (Smith, "Various optimizers for single-stage
    production", 1956) and starves long jobs; for language models with predicted lengths see Fu et al.,
    "Efficient LLM Scheduling by Learning to Rank", 2024. The bound on starvation: a request of one token more may be
    overtaken by those that come up to `patience` steps later, and by no others.

    Args:
        patience: steps that a request waits for each token by which it is longer.
        predicted: tokens expected of each request, by its id. Without them `max_tokens` is all that is known, and
            where all requests have the same limit, they are admitted in the order of their arrival.

    Raises:
        CourseError: for negative patience.
    """

    name = "sjf"

    def __init__(self, patience: float = 10.0, predicted: Mapping[str, float] | None = None) -> None:
        self.patience = check_weight("patience", patience)
        self.predicted = predicted or {}
        if predicted:
            self.name = "sjf-predicted"

    def rank(self, request: RequestState) -> float:
        return request.arrival_step + self.patience * self.predicted.get(request.id, request.max_tokens)


class SLATiers(Policy):
    """Tiers of service: requests of a better tier are admitted first, and preempt others if every slot is taken.

    A request's rank is its deadline: its arrival plus `patience` steps for each tier below the best
    (priority 0). Serving the earliest deadline first is Liu and Layland, "Scheduling Algorithms for
    Multiprogramming in a Hard-Real-Time Environment", 1973; tiers by number, smaller first, are vLLM's
    `priority` scheduling. The bound on starvation: a request is overtaken only by those of a better tier that
    come within `patience` steps a tier.

    Raises:
        CourseError: for negative patience, which would serve the worst tier first.
    """

    name = "sla"

    def __init__(self, patience: float = 1000.0) -> None:
        self.patience = check_weight("patience", patience)

    def rank(self, request: RequestState) -> float:
        return request.arrival_step + self.patience * request.priority

    def victim(
        self, scheduler: SchedulerView, candidates: Sequence[RequestState], request: RequestState
    ) -> RequestState | None:
        last = candidates[-1]
        is_outranked = last.priority > request.priority and last.key > request.key
        return last if request.is_running or is_outranked else None


def check_weight(name: str, weight: float) -> float:
    """`weight` itself, or a `CourseError` where it would turn the order around."""
    if not 0 <= weight < float("inf"):
        raise CourseError(f"a {name} of {weight}: give a number of steps, 0 or more")
    return weight


def _by_name(*policies: type[Policy]) -> dict[str, type[Policy]]:
    return {policy.name: policy for policy in policies}


POLICIES = _by_name(
    StaticBatching,
    Continuous,
    Orca,
    OrcaMax,
    VLLM,
    TGI,
    TGI3,
    GuaranteedNoEvict,
    MaxUtilization,
    DynamicSplitFuse,
    SarathiServe,
    SGLang,
    FairShares,
    ShortestJobFirst,
    SLATiers,
)
"""The policies that are compared side by side, by name."""

ABLATIONS = _by_name(PrefillFirstReserved, PrefillFirst, SarathiReserved)
"""The policies of single rungs of the ladder and of single forms of the engine, by name."""


def make_policy(name: str, **options: Any) -> Policy:
    """The policy of that name, e.g. `make_policy("sla", patience=500)`.

    Raises:
        CourseError: for an unknown name, or an option that the policy does not have.
    """
    policies = POLICIES | ABLATIONS
    if name not in policies:
        raise CourseError(f"unknown policy {name!r}: use one of {', '.join(policies)}")
    try:
        return policies[name](**options)
    except TypeError:
        raise CourseError(f"policy {name!r} does not take {', '.join(options)}: see its docstring") from None
