"""Every policy on the real engine at a size where memory is short, with the simulator's prediction beside it.

One model and one runner serve all policies; each gets the same requests, arrivals and memory, and a scheduler of its
own. The step costs are fitted to runs of one policy (`FITTED_POLICY`) on other requests, one a round, and with them
the simulator predicts every policy's run: how long it takes, when first tokens come, how long the gaps between tokens
are. All requests name the same limit, the longest answer, and end earlier by themselves, as people's do.

On a GPU the host waits for each step here, so that a measured step is one that the simulator knows: the engine's own
loop, which plans ahead, is quicker.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from kernels.machine import machine
from lessonlib.engine.frontend.options import choose_device
from lessonlib.engine.llm import LLM
from lessonlib.engine.model import Llama
from lessonlib.engine.runner import ModelRunner
from lessonlib.ladder_load import load_model
from lessonlib.metrics import metrics
from lessonlib.scheduling.policies import POLICIES, ShortestJobFirst, make_policy
from lessonlib.scheduling.policy import Policy
from lessonlib.scheduling.scheduler import Scheduler
from lessonlib.simulation import CostModel, Simulator, predicted_lengths, simulate
from lessonlib.tables import align
from lessonlib.trace import Trace
from lessonlib.workload import Workload, homework_lengths, poisson_arrivals

FITTED_POLICY = "vllm"
TIMED_SEED, FITTED_SEED = 0, 1
PREDICTOR_ERROR = 0.5  # of the lengths that shortest-first is told; see `predicted_lengths`
SAME_RULE = ("continuous",)  # decides as vllm does with these settings, so it is not run
UNMEASURED = CostModel(0.0, 0.0, 0.0, 0.0)  # for the run that the costs are fitted to
FIGURES = {  # key of a row -> (words, where in `metrics`, its target: the relative error that is still good)
    "tokens_per_second": ("tok/s", ("tokens_per_second",), 0.10),
    "ttft_p50": ("first token p50", ("ttft_seconds", "p50"), 0.15),
    "ttft_p99": ("p99", ("ttft_seconds", "p99"), 0.15),
    "itl_p50": ("gap p50", ("itl_seconds", "p50"), 0.15),
    "itl_p99": ("p99", ("itl_seconds", "p99"), 0.15),
}


@dataclass(frozen=True)
class Load:
    """Requests, and the sizes they are run with, in tokens unless another unit is named.

    Attributes:
        slots: requests at once.
        requests: how many there are. Every fourth belongs to a second user.
        output_tokens: lengths of answers, each equally likely; the longest is everyone's limit.
        shared_tokens: of the beginning that a user's prompts have in common.
        own_tokens: the fewest and the most that follow it.
        long_tokens: what follows it in every eighth prompt.
        step_tokens: the most that one step computes.
        longest_at_once: how many of the longest sequences memory holds: fewer than there are slots.
        rate: arrivals a second.
        rounds: over all policies, if time allows; each figure is the median of its rounds.
        time_limit: seconds for all rounds. A round that would end later is not begun, unless it is the first.
        block_size: tokens a block of K/V.
    """

    slots: int = 6
    requests: int = 20
    output_tokens: tuple[int, ...] = (6, 18, 54)
    shared_tokens: int = 32
    own_tokens: tuple[int, int] = (6, 32)
    long_tokens: int = 96
    step_tokens: int = 64
    longest_at_once: float = 2.2
    rate: float = 4.0
    rounds: int = 3
    time_limit: float = 480.0
    block_size: int = 16

    @property
    def limit(self) -> int:
        """The `max_tokens` of every request."""
        return max(self.output_tokens)

    @property
    def longest(self) -> int:
        """Tokens of the longest prompt and answer together."""
        return self.shared_tokens + max(self.long_tokens, self.own_tokens[1]) + self.limit

    @property
    def num_blocks(self) -> int:
        """Blocks of memory, the null block included."""
        return int(self.longest_at_once * -(-self.longest // self.block_size)) + 1

    def predict_options(self) -> dict[str, Any]:
        """Sizes as `simulate` takes them."""
        return {
            "slots": self.slots,
            "num_blocks": self.num_blocks,
            "block_size": self.block_size,
            "token_budget": self.step_tokens,
            "max_model_len": self.longest,
            "prefix_caching": True,
        }


def gpu_load() -> Load:
    """For shapes of 7 or 8 billion weights on one card."""
    return Load(
        64, 256, (16, 64, 256), 128, (64, 512), 2048, step_tokens=2048, longest_at_once=12, rate=30.0
    )  # fmt: skip


@dataclass(frozen=True)
class Requests:
    """A workload in seconds, its prompts as token ids, and each request's user."""

    workload: Workload
    prompts: list[list[int]]
    users: list[str]

    @classmethod
    def draw(cls, load: Load, vocabulary: int, seed: int) -> Requests:
        """Draw random ids: the cost of a step does not depend on them."""
        rng = np.random.default_rng(seed)
        users = ["few" if row % 4 == 3 else "many" for row in range(load.requests)]
        shared = {user: rng.integers(0, vocabulary, load.shared_tokens).tolist() for user in ("few", "many")}
        low, high = load.own_tokens
        own = rng.integers(low, high + 1, load.requests)
        own[4::8] = load.long_tokens
        prompts = [
            shared[user] + rng.integers(0, vocabulary, count).tolist()
            for user, count in zip(users, own, strict=True)
        ]
        outputs = homework_lengths(load.requests, seed, load.output_tokens)
        arrivals = poisson_arrivals(load.requests, load.rate, seed)
        workload = Workload.from_lengths(outputs, list(map(len, prompts)), arrivals, "seconds")
        return cls(workload, prompts, users)

    def policy(self, name: str) -> Policy:
        """The policy by that name; shortest-first is told lengths that are off by a factor e to `PREDICTOR_ERROR`."""
        if name == ShortestJobFirst.name:
            return ShortestJobFirst(predicted=predicted_lengths(self.workload, PREDICTOR_ERROR))
        return make_policy(name)


class MeasuredRide(Simulator):
    """`Simulator` with the real model in place of a cost model: a step takes as long as it takes.

    Args:
        runner: computes the plans.
        others: as `Simulator` takes them.

    Attributes:
        outputs: request id -> its tokens.
    """

    def __init__(self, runner: ModelRunner, *others: Any) -> None:
        super().__init__(*others)
        self.runner = runner
        self.outputs: dict[str, list[int]] = {str(row): [] for row in range(len(self.workload))}
        self._last_end = time.perf_counter()

    def step(self) -> None:
        plan = self.scheduler.schedule()
        tokens: dict[str, int] = {}
        if plan.decodes or plan.prefills:
            tokens = self.runner.run(plan)
            end = time.perf_counter()
            duration = end - self._last_end
        else:  # nothing to do until the next request comes, which is now
            duration, end = self._duration(plan), time.perf_counter()
        self._last_end = end
        for name, token in tokens.items():
            self.outputs[name].append(token)
        self.scheduler.update(plan, tokens, self._stopped(plan), start=self.now, duration=duration)
        self.now += duration


def bench_policies(
    policies: Sequence[str] = (),
    model: str | None = None,
    device: str = "auto",
    load: Load | None = None,
) -> dict[str, Any]:
    """Measure policies on the engine, and predict them.

    Args:
        policies: names; by default all of `POLICIES` but `continuous`, which decides as `vllm` does.
        model, device: as `ladder.bench_engine` takes them.
        load: requests and sizes; by default made for the device.

    Returns:
        The facts about the machine; model, workload and cost model; and rows, one a policy: `measured` and
        `predicted` with the keys of `FIGURES` and more, and `error`, the prediction's relative error for each.

    Raises:
        CourseError: for an unknown policy, model or device, or too little memory.
    """
    began = time.perf_counter()
    names = list(policies) or [name for name in POLICIES if name not in SAME_RULE]
    for name in names:
        make_policy(name)
    torch_device = choose_device(device)
    llama, shown = load_model(model, torch_device)
    load = load or (gpu_load() if torch_device.type == "cuda" else Load())
    found = _Race(llama, load, names)
    rows = found.run()
    return {
        **machine("transformers", device=torch_device.type),
        "threads": torch.get_num_threads(),
        "model": shown,
        "dtype": str(llama.dtype).removeprefix("torch."),
        "workload": {**asdict(load), "num_blocks": load.num_blocks, "longest": load.longest},
        "fitted_on": f"{FITTED_POLICY}, other requests",
        "predictor_error": PREDICTOR_ERROR,
        "cost_model": vars(found.costs),
        "same_tokens": found.same_tokens,
        "rows": rows,
        "summary": summary(rows),
        "seconds": time.perf_counter() - began,
    }


class _Race:
    """Measures policies on one model, then predicts them."""

    def __init__(self, llama: Llama, load: Load, names: Sequence[str]) -> None:
        self.load, self.names, self.costs = load, names, UNMEASURED
        self.llm = LLM(
            llama,
            max_num_seqs=load.slots,
            max_num_batched_tokens=load.step_tokens,
            max_model_len=load.longest,
            num_blocks=load.num_blocks,
            block_size=load.block_size,
            skip_tokenizer_init=True,
        )
        vocabulary = llama.config.vocab_size
        self.timed = Requests.draw(load, vocabulary, TIMED_SEED)
        self.fitted = Requests.draw(load, vocabulary, FITTED_SEED)
        self.same_tokens = True
        self._tokens: dict[str, list[int]] | None = None

    def run(self) -> list[dict[str, Any]]:
        """A row for each policy."""
        self.ride(FITTED_POLICY, self.fitted)  # warms up
        fitted = list[Trace]()
        traces: dict[str, list[Trace]] = {name: [] for name in self.names}
        began = time.perf_counter()
        with tqdm(total=self.load.rounds * len(self.names), desc="policies", unit="run") as bar:
            for done in range(self.load.rounds):
                if done and (time.perf_counter() - began) * (done + 1) / done > self.load.time_limit:
                    break
                fitted.append(self.ride(FITTED_POLICY, self.fitted)[0])
                for turn in range(len(self.names)):
                    name = self.names[(turn + done) % len(self.names)]
                    bar.set_description(name)
                    traces[name].append(self._timed(name))
                    bar.update()
        self.llm.close()
        self.costs = CostModel.fit(*fitted)
        return [self._row(name, traces[name]) for name in self.names]

    def _timed(self, name: str) -> Trace:
        trace, tokens = self.ride(name, self.timed)
        self._tokens = self._tokens or tokens
        self.same_tokens = self.same_tokens and tokens == self._tokens
        return trace

    def ride(self, name: str, requests: Requests) -> tuple[Trace, dict[str, list[int]]]:
        """One policy's run on the model: its Trace in seconds, and all tokens."""
        scheduler = self._scheduler(requests.policy(name))
        given = (requests.workload, scheduler, UNMEASURED, requests.prompts, self.load.limit, requests.users)
        with torch.inference_mode():
            ride = MeasuredRide(self.llm.runner, *given)
            return ride.run(), ride.outputs

    def _scheduler(self, policy: Policy) -> Scheduler:
        return Scheduler(policy=policy, clock="seconds", maker="course engine", **self.load.predict_options())

    def predicted(self, name: str) -> Trace:
        """The same by the simulator, whose costs are fitted to other requests."""
        requests = self.timed
        return simulate(
            requests.workload,
            requests.policy(name),
            cost_model=self.costs,
            prompts=requests.prompts,
            max_tokens=self.load.limit,
            salts=requests.users,
            **self.load.predict_options(),
        )

    def _row(self, name: str, traces: Sequence[Trace]) -> dict[str, Any]:
        every = [figures(trace) for trace in traces]
        measured = {key: float(np.median([each[key] for each in every])) for key in every[0]}
        predicted = figures(self.predicted(name))
        return {
            "policy": name,
            "rounds": len(traces),
            "measured": measured,
            "predicted": predicted,
            "error": {key: predicted[key] / measured[key] - 1 for key in FIGURES},
            "rounds_tokens_per_second": [each["tokens_per_second"] for each in every],
            "held_by": metrics(traces[-1])["held_by"],
        }


def figures(trace: Trace) -> dict[str, float]:
    """The numbers of a run that are compared, in seconds and tokens a second, and counts beside them."""
    found = metrics(trace)
    answer = {key: _at(found, where) for key, (_, where, _) in FIGURES.items()}
    counts = ("seconds", "steps", "preemptions", "recomputed_tokens", "kv_utilization")
    return answer | {key: float(found[key]) for key in counts}


def _at(found: Mapping[str, Any], where: Sequence[str]) -> float:
    value: Any = found
    for key in where:
        value = value[key]
    return float(value)


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Of each figure the errors over all policies: median and worst size, the target, and who misses it."""
    answer = {}
    for key, (_, _, target) in FIGURES.items():
        sizes = {row["policy"]: abs(row["error"][key]) for row in rows}
        answer[key] = {
            "median": float(np.median(list(sizes.values()))),
            "worst": max(sizes.values()),
            "target": target,
            "missed_by": [name for name, size in sizes.items() if size > target],
        }
    return answer


def report(result: Mapping[str, Any]) -> str:
    """The result as text for a terminal."""
    load = result["workload"]
    rows = result["rows"]
    head = (
        f"{result['machine']}, {result['date']}\n{result['model']}, {result['dtype']}, {load['requests']} requests, "
        f"{load['slots']} slots, memory for {load['longest_at_once']:g} of the longest, "
        f"{min(row['rounds'] for row in rows)} rounds, {result['seconds']:.0f} s in all; "
        f"the same tokens under every policy: {'yes' if result['same_tokens'] else 'no'}"
    )
    misses = [
        f"{FIGURES[key][0] if key != 'ttft_p99' and key != 'itl_p99' else key}: median {each['median']:.1%}, "
        f"worst {each['worst']:.1%}, target {each['target']:.0%}, missed by {', '.join(each['missed_by']) or 'none'}"
        for key, each in result["summary"].items()
    ]
    return "\n\n".join([head, "Measured, predicted, and how far off\n" + _table(rows), "\n".join(misses)])


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    shown: dict[str, Callable[[float], str]] = {
        key: (lambda value: f"{value:.1f}")
        if key == "tokens_per_second"
        else (lambda value: f"{1000 * value:,.0f}")
        for key in FIGURES
    }
    titles = [title for words, _, _ in FIGURES.values() for title in (words, "predicted", "off")]
    lines = [["policy", *titles, "preempt", "predicted"]]
    for row in rows:
        cells = [row["policy"]]
        for key, show in shown.items():
            cells += [show(row["measured"][key]), show(row["predicted"][key]), f"{row['error'][key]:+.1%}"]
        counts = [f"{row[kind]['preemptions']:.0f}" for kind in ("measured", "predicted")]
        lines.append([*cells, *counts])
    return align(lines) + "\n(first tokens and gaps in ms)"
