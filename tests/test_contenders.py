"""Contenders: the work they get, the turns they take, what is written down, and what is said when one fails."""

import json
import math
import os
import random
import signal
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest
import torch
from command import lesson, lesson_process
from transformers import AutoModelForCausalLM

from lessonlib import recorded
from lessonlib.cli import main
from lessonlib.contenders import compare, presets, report, sizes, vllm_engine
from lessonlib.contenders.agreement import agreement
from lessonlib.contenders.course import load_functions
from lessonlib.contenders.hf import Generate, cache_tokens
from lessonlib.contenders.hf_trace import BatchTimes, static_trace
from lessonlib.contenders.job import BLOCK_SIZE, Job, Row
from lessonlib.contenders.own_parts import check_own_parts
from lessonlib.contenders.process import (
    ContenderError,
    ContenderProcess,
    RefusedError,
    environment,
    vllm_python,
)
from lessonlib.contenders.registry import CONTENDERS, entry
from lessonlib.contenders.sizes import bytes_read, kv_capacity
from lessonlib.contenders.turns import rotated
from lessonlib.contenders.vllm_engine import check_version
from lessonlib.contenders.vllm_trace import QueueState, Scheduled, TraceRecorder
from lessonlib.contenders.weights import write_weights
from lessonlib.engine import LLM, SamplingParams
from lessonlib.engine.checkpoint import LlamaConfig
from lessonlib.errors import CourseError
from lessonlib.result import LIMITS, Comparison, Latencies, Peak, Repetition, Result, RowFacts
from lessonlib.split import factor, split
from lessonlib.trace import Header, HeldBy, Kind, TraceBuilder
from lessonlib.viz.contenders import comparison_chart, look_of
from lessonlib.viz.waterfall import waterfall
from lessonlib.workload import poisson_arrivals

ROOT = Path(__file__).parents[1]

KV_BYTES = (
    2 * 30 * 3 * 64 * 2
)  # of a token in SmolLM2-135M: keys and values, layers, heads, their size, bfloat16

TINY = replace(
    presets.CPU,
    slots=4,
    choices=(2, 4, 8),
    mixed_requests=(6,),
    rates=(20.0,),
    online_requests=6,
    identity=(6, 4),
    repeat=2,
    max_model_len=256,
)


@pytest.fixture(autouse=True)
def kind_to_neighbors(monkeypatch):
    """Tests take no times that mean anything: waiting threads sleep, so that tests side by side do not stall."""
    monkeypatch.setenv("GOMP_SPINCOUNT", "0")


@pytest.fixture
def job(model_path):
    row = Row("row", [[1, 2, 3], [4, 5]], [3, 2])
    return Job(
        str(model_path), "float32", "cpu", 2, 64, 1, sorted(os.sched_getaffinity(0))[:1], [row], kv_gib=1
    )


def baseline(count, kind, seed=0):
    """The workload of the recorded baseline, as its script draws it."""
    r = random.Random(seed)
    prompts = [[r.randrange(3, 31999) for _ in range(r.randint(16, 48))] for _ in range(count)]
    return prompts, [r.choice([64, 256, 1024]) for _ in range(count)] if kind == "mix" else [kind] * count


# ----- the work -----


def test_gpu_rows_are_the_baselines():
    rows = presets.rows_for(["mixed", "fixed", "sweep"], presets.GPU, presets.random_prompts(32_000), 32_000)
    found = {row.name: (row.prompts, row.max_tokens) for row in rows}
    assert found["64 mixed"] == baseline(64, "mix")
    assert found["256 mixed"] == baseline(256, "mix")
    for count in (1, 4, 16, 32, 64, 128):
        assert found[f"{count} x 256"] == baseline(count, 256)
    assert len(found) == len(rows) == 9


def test_the_floor_of_the_homework_on_an_h100(tmp_path, job):
    """BASELINE: 32,320 tokens, 13.4 GB of weights a step, 524 kB of K/V a token: 7.1 s at 3,027 GB/s."""
    config = LlamaConfig.load(presets.write_config(tmp_path, presets.LLAMA_2_7B, "bfloat16"))
    weights, kv = bytes_read(config, "bfloat16")
    assert kv == 524_288
    assert weights == pytest.approx(13.2e9, rel=0.01)
    row = presets.mixed(64, presets.GPU, presets.random_prompts(32_000))
    facts = presets.facts(row, replace(job, slots=256), weights, kv, 3_027e9)
    assert (facts.requests, facts.output_tokens) == (64, 32_320)
    assert facts.floor_seconds == pytest.approx(7.1, abs=0.1)


def test_more_requests_than_slots_take_more_steps(job):
    row = Row("row", [[1]] * 8, [10] * 8)
    for slots, paged_slots, seconds in ((8, 0, 1_000), (2, 0, 4_000), (2, 8, 1_000)):
        limits = replace(job, slots=slots, paged_slots=paged_slots)
        assert presets.facts(row, limits, 100, 0, 1.0).floor_seconds == seconds


@pytest.mark.parametrize("preset", presets.PRESETS.values(), ids=presets.PRESETS)
def test_a_split_has_more_requests_than_slots_and_memory_for_no_more_than_its_slots(preset, job):
    row = presets.split(preset, presets.random_prompts(32_000))
    limits = preset.job_for(row, job)
    assert len(row) >= 2 * limits.paged_slots > 2 * limits.slots
    assert limits.num_blocks * BLOCK_SIZE >= limits.slots * row.longest
    assert limits.num_blocks * BLOCK_SIZE < (limits.slots + 1) * row.longest
    assert len(set(row.max_tokens)) > 1


def test_each_form_of_the_course_changes_one_thing(job):
    """From static batches to the whole engine; a form that leads nowhere is none of them."""
    forms = [entry("course")]
    while forms[0].builds_on:
        forms.insert(0, entry(forms[0].builds_on))
    assert [each.max_num_seqs(replace(job, paged_slots=6)) for each in forms] == [2, 2, 6, 6, 6, 6]
    assert [each.all_options["enforce_eager"] for each in forms] == [True] * 4 + [False] * 2
    assert all(each.all_options.keys() == forms[0].options.keys() for each in forms)


def test_random_weights_are_written_once_and_are_the_courses_own(tmp_path):
    """Two engines that draw their own cannot be compared word by word."""
    shape = {**presets.LLAMA_2_7B, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    shape |= {"num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 64}
    folder = presets.write_config(tmp_path / "model", shape, "float32")
    write_weights(folder, "float32", "cpu")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = list(range(3, 19))
    theirs = model.generate(torch.tensor([ids]), max_new_tokens=8, do_sample=False)[0, len(ids) :].tolist()
    drawn, read = (LLM(folder, load_format=how, skip_tokenizer_init=True) for how in ("dummy", "auto"))
    params = SamplingParams(max_tokens=8, temperature=0, ignore_eos=True)
    for llm in (drawn, read):
        assert llm.generate([{"prompt_token_ids": ids}], params)[0].outputs[0].token_ids == theirs


def test_the_fairness_page_names_every_variable_that_vllm_gets(job):
    page = (ROOT / "docs" / "fairness.md").read_text(encoding="utf-8")
    for device in ("cpu", "cuda"):
        there = vllm_engine.environment(replace(job, device=device))
        assert not [name for name in there if f"`{name}" not in page]
    assert set(vllm_engine.environment(job, by_default=True)) == {"HF_HUB_OFFLINE", "VLLM_NO_USAGE_STATS"}


def test_every_entry_has_a_module_that_makes_it():
    for each in CONTENDERS.values():
        path = ROOT / Path(*each.module.split(".")).with_suffix(".py")
        assert "def make(entry: Entry, job: Job)" in path.read_text(encoding="utf-8"), each.name


def test_a_small_card_gets_small_shapes():
    assert presets.shapes_for(80 * 2**30)[1] is presets.LLAMA_2_7B
    assert presets.shapes_for(16 * 2**30)[1] is presets.LLAMA_1B


def test_lengths_of_a_file_are_cut_to_what_the_preset_holds(tmp_path):
    path = tmp_path / "trace.csv"
    path.write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-01-01 00:00:00,9000,5\n2023-01-01 00:00:01,0,900\n"
    )
    row = presets.from_file(str(path), presets.CPU, 1_000)
    assert row.name == "first 2 of trace"
    assert [len(ids) for ids in row.prompts] == [512, 1]
    assert row.max_tokens == [5, 64]


def test_named_shapes_bring_their_own_lengths():
    preset = presets.with_shapes(presets.GPU, "llama-3-8b")
    assert presets.shapes_for(16 * 2**30, preset.shapes) == presets.SHAPES["llama-3-8b"]
    assert preset.max_model_len == 8_192
    assert preset.longest_prompt + max(preset.choices) == preset.max_model_len
    with pytest.raises(CourseError, match="unknown shapes 'llama-9'"):
        presets.with_shapes(presets.GPU, "llama-9")
    with pytest.raises(CourseError, match="for --preset gpu"):
        presets.with_shapes(presets.CPU, "llama-3-8b")


@pytest.mark.parametrize("preset", presets.PRESETS.values(), ids=presets.PRESETS)
def test_conversations_grow_by_what_is_asked_and_answered(preset, job):
    count, turns, common, asked, answer = preset.conversations
    row = presets.conversations(preset, 1_000)
    lengths = list(row.lengths())
    assert len(lengths) == count * turns
    assert lengths[:turns] == [(common + asked + turn * (asked + answer), answer) for turn in range(turns)]
    assert row.longest == sum(lengths[turns - 1]) <= preset.max_model_len
    assert row.useful_tokens == count * turns * answer
    assert len({tuple(ids[:common]) for ids in row.prompts}) == 1
    assert preset.job_for(row, job).prefix_caching
    assert not entry("hf").takes(row)


@pytest.mark.parametrize("preset", presets.PRESETS.values(), ids=presets.PRESETS)
def test_as_many_come_a_second_as_the_rows_name_says(preset, job):
    for seed, rate in product(range(3), preset.rates):
        row = presets.online(rate, preset, presets.random_prompts(32_000), seed)
        assert row.name == f"online {rate:g}/s"
        assert presets.facts(row, job, 1, 0, 1.0).rate == pytest.approx(rate)
        assert row.arrivals[0] == 0
        drawn = np.diff(poisson_arrivals(len(row), rate, seed))
        gaps = np.diff(row.arrivals)  # crowds and pauses are those that were drawn
        assert gaps / gaps.mean() == pytest.approx(drawn / drawn.mean())


def test_a_rate_is_a_number_or_a_share_of_the_peak():
    assert presets.arrival_rate("8", 100.0) == 8.0
    assert presets.arrival_rate("70%", 256 / 16.44) == 10.9  # three digits, as its row's name shows
    row = presets.online(10.9, presets.GPU, presets.random_prompts(32_000))
    assert row.name == "online 10.9/s"


def test_a_peak_is_read_off_the_mixed_row_of_most_requests():
    found = Comparison.load(ROOT / "benchmarks" / "results" / "compare_h100.json")
    peak = found.peak("vllm")
    assert peak.rate == pytest.approx(256 / found.of("vllm", "256 mixed").seconds)
    assert "vllm on 256 mixed" in peak.source
    with pytest.raises(CourseError, match="hf finished no mixed row there"):
        found.peak("hf")


def test_one_request_is_a_stream_too():
    alone = replace(presets.CPU, online_requests=1)
    assert presets.online(2.0, alone, presets.random_prompts(1_000)).arrivals == [0.0]


def test_a_job_travels_as_json(tmp_path, job):
    assert Job.load(job.save(tmp_path / "job.json")) == replace(job, cores=list(job.cores))


# ----- turns -----


def test_every_contender_is_first_once():
    names = ["hf", "course", "vllm"]
    orders = [rotated(names, turn) for turn in range(3)]
    assert [order[0] for order in orders] == names
    assert all(sorted(order) == sorted(names) for order in orders)


def test_agreement_says_where_answers_part():
    assert agreement([[1, 2], [3]], [[1, 2], [3]])["first_difference"] is None
    found = agreement([[1, 2], [3, 4]], [[1, 2], [3, 5]])
    assert (found["same"], found["requests"], found["first_difference"]) == (1, 2, (1, 1))


def test_all_get_the_same_cores_and_only_ours_sees_the_kernels(monkeypatch, tmp_path, job):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), "elsewhere"]))
    seen = {name: environment(entry(name), job, tmp_path) for name in ("hf", "course", "vllm")}
    assert {each["OMP_NUM_THREADS"] for each in seen.values()} == {"1"}
    assert {each["GOMP_SPINCOUNT"] for each in seen.values()} == {"0"}
    assert seen["vllm"]["PYTHONPATH"] == seen["hf"]["PYTHONPATH"] == f"{tmp_path}{os.pathsep}elsewhere"
    assert seen["course"]["PYTHONPATH"] == f"{ROOT}{os.pathsep}elsewhere"


# ----- processes -----


def test_a_contender_runs_what_it_is_asked_for(job):
    process = ContenderProcess("course", job)
    try:
        about = process.introduce(120)
        assert about["settings"]["max_num_seqs"] == 2
        assert about["versions"]["torch"]
        one, again = process.run("row", 60), process.run("row", 60)
        assert [len(ids) for ids in one["tokens"]] == [3, 2]
        assert one["tokens"] == again["tokens"]
        assert one["peak_bytes"]["host"] > 2**27
    finally:
        process.close()
    assert not process.is_alive


def test_a_model_that_is_none_is_refused(job, tmp_path):
    process = ContenderProcess("course", replace(job, model=str(tmp_path)))
    with pytest.raises(RefusedError, match=r"no \*\.safetensors"):
        process.introduce(120)
    process.close()


def test_a_contender_that_hangs_is_ended(job):
    process = ContenderProcess("course", job)
    with pytest.raises(ContenderError, match="gave no answer for 0 s and was ended"):
        process.introduce(0.01)
    assert not process.is_alive
    process.close()


def test_a_contender_that_dies_is_heard(job):
    process = ContenderProcess("course", job)
    os.killpg(process._process.pid, signal.SIGKILL)
    for _ in range(2):  # whoever asks again is told again, and does not wait
        with pytest.raises(ContenderError, match="ended with status -9; it printed nothing"):
            process.introduce(60)
    process.close()


def test_vllm_that_is_not_there_is_told_how_to_get(monkeypatch):
    monkeypatch.setenv("LESSONLIB_VLLM_PYTHON", "no-such-python")
    with pytest.raises(CourseError, match="no-such-python, and there is no such program"):
        vllm_python()


@pytest.mark.parametrize("version", ["0.25.1", "0.32.0", "0.32.0+cpu", "0.30.1.dev3"])
def test_versions_of_vllm_that_run(version):
    assert check_version(version) == version


@pytest.mark.parametrize("version", ["0.25.0", "0.9.2", "0.33.0", "1.0.0"])
def test_versions_of_vllm_that_do_not(version):
    with pytest.raises(CourseError, match=f"vLLM {version}: the course runs 0.25.1"):
        check_version(version)


# ----- the whole -----


@pytest.fixture(scope="module")
def measured(tmp_path_factory, small_model):
    """hf and the course's engine on a tiny preset and a small model, and what was said meanwhile."""
    out, said = tmp_path_factory.mktemp("compare") / "out.json", []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GOMP_SPINCOUNT", "0")
        options = compare.Options(
            TINY, ("hf", "course"), ("mixed", "online"), model=str(small_model), out=out
        )
        found = compare.compare(options, said.append)
    return found, out, said


def test_both_say_the_same_in_float32(measured):
    check = measured[0].agreement[0]
    assert (check["row"], check["dtype"], check["pair"]) == ("identity", "float32", ["hf", "course"])
    assert (check["same"], check["requests"], check["first_difference"]) == (6, 6, None)


@pytest.mark.prove
def test_who_computes_in_another_dtype_is_not_asked(measured, monkeypatch):
    """The control run of vLLM takes the dtype of the model's files."""
    assert [name for name, each in CONTENDERS.items() if not each.takes_dtype] == ["vllm-as-it-comes"]
    monkeypatch.setitem(CONTENDERS, "hf", replace(entry("hf"), takes_dtype=False))
    small = replace(TINY, choices=(1, 2), mixed_requests=(2,))
    names = ("hf", "course")
    found = compare.compare(compare.Options(small, names, repeat=1, is_timed=False), lambda line: None)
    assert not [each for each in found.agreement if each["row"] == "identity"]


@pytest.mark.prove
def test_limits_stand_in_every_result(tmp_path):
    """One of each kind of engine; vLLM's are held to the same in its own tests."""
    names = ("hf", "hf-cb", "course")
    small = replace(TINY, identity=(0, 0), slots=3, choices=(2, 4), mixed_requests=(4,))
    out = tmp_path / "out.json"
    found = compare.compare(
        compare.Options(small, names, repeat=1, is_timed=False, out=out), lambda line: None
    )
    assert found.contenders == list(names)
    for result in Comparison.load(out).results:
        limits = {name: result.settings[name] for name in LIMITS}
        assert limits.pop("max_num_seqs") == 3
        assert limits.pop("kv_bytes") == kv_capacity(result.settings) * KV_BYTES > 0
        is_paged = result.contender != "hf"
        assert all(is_paged == bool(value) for value in limits.values())
    paged = [each.settings["kv_bytes"] for each in found.results if each.contender != "hf"]
    assert paged == pytest.approx([2 * 2**30] * len(paged), rel=0.01)
    lines = report.text(found).splitlines()
    table = lines[next(at for at, line in enumerate(lines) if line.startswith("  limits")) :]
    assert [line.split()[0] for line in table[1:4]] == list(names)


def test_a_static_cache_is_as_long_as_its_batchs_longest():
    row = Row("row", [[1, 2], [3], [4]], [1, 5, 2])
    assert cache_tokens(row, 2) == 2 * (2 + 5)
    assert cache_tokens(row, 1) == 1 + 5
    assert cache_tokens(row, 3) == 3 * (2 + 5)


@pytest.mark.parametrize("machine", ["cpu", "h100"])
def test_a_record_names_the_policy_that_ran(machine):
    """Those of before the policies had a name each, too; what is saved again has the name of today."""
    found = Comparison.load(ROOT / "benchmarks" / "results" / f"compare_{machine}_split.json")
    for result in found.results:
        if not result.contender.startswith("course"):
            continue
        policy = entry(result.contender).all_options["policy"]
        assert result.trace is not None
        assert (result.settings["policy"], result.trace.header.policy) == (policy, policy), result.contender
        assert Result.from_dict(result.to_dict()).settings == result.settings


def test_fairness_tells_the_limits_that_were_recorded():
    text = (ROOT / "docs" / "fairness.md").read_text(encoding="utf-8")
    for result in [each for found in recorded.comparisons().values() for each in found.results]:
        if result.contender in ("course", "vllm"):
            row = next(line for line in text.splitlines() if line.startswith(f"| `{result.contender}`"))
            assert f"{result.settings['max_num_batched_tokens']:,}" in row
            assert f"{result.settings['block_size']}" in row


def test_turns_are_rotated_and_every_run_is_kept(measured):
    runs = {name: measured[0].of(name, "6 mixed").repetitions for name in ("hf", "course")}
    assert [(each.round, each.position) for each in runs["hf"]] == [(0, 0), (1, 1)]
    assert [(each.round, each.position) for each in runs["course"]] == [(0, 1), (1, 0)]


def test_a_static_batch_computes_more_than_was_asked_for(measured):
    found = measured[0]
    hf, course = (found.of(name, "6 mixed").repetitions[0] for name in ("hf", "course"))
    assert hf.useful_tokens == course.useful_tokens == course.raw_tokens == found.rows[0].output_tokens
    most = presets.mixed(6, TINY, presets.random_prompts(1_000)).max_tokens
    assert hf.raw_tokens > hf.useful_tokens
    assert found.of("hf", "6 mixed").settings["batch"] == 4 < len(most)


def test_online_rows_leave_static_batches_out(measured):
    found = measured[0]
    assert found.of("hf", "online 20/s") is None
    latencies = found.of("course", "online 20/s").latencies
    assert len(latencies.ttft) == 6
    assert min(latencies.ttft) > 0


def test_the_file_and_the_table_say_who_kept_up(measured):
    found, out, _ = measured
    written = {(each["contender"], each["row"]): each for each in json.loads(out.read_text())["results"]}
    pace = written["course", "online 20/s"]["pace"]
    assert pace["offered"] == pytest.approx(20.0)
    assert pace["finished"] == pytest.approx(6 / found.of("course", "online 20/s").seconds)
    runs = written["course", "online 20/s"]["repetitions"]
    assert len(runs) == 2
    for name in ("ttft_p99", "gap_p99"):
        assert pace[name] == pytest.approx(np.median([each[name] for each in runs]))
        assert min(each[name] for each in runs) > 0
    assert "pace" not in written["course", "6 mixed"]
    assert "TTFT p99 s  gap p99 ms" in report.text(found)


def test_a_static_cache_is_no_longer_than_its_row_needs(job):
    """transformers makes each next cache as long as the longest before it, and attention reads all of it."""
    contender = Generate(job, is_compiled=True)
    lengths = []
    for name, most in (("long", 40), ("short", 4)):
        contender.run(Row(name, [[1, 2, 3]], [most]))
        lengths.append(contender.model._previous_max_cache_length)
    assert lengths == [42, 6]  # the last token is never read


@pytest.mark.parametrize("name", ["hf", "course"])
def test_contenders_leave_a_trace(measured, name):
    for row in measured[0].rows:
        if (result := measured[0].of(name, row.name)) is None:
            continue
        trace = result.trace
        assert trace.tokens == row.output_tokens
        assert trace.header.slots == 4


def test_warm_up_and_loading_are_outside_the_clock(measured):
    settings = measured[0].of("course", "6 mixed").settings
    assert settings["warm_up_seconds"] > 0
    assert settings["load_seconds"] > 0
    told = [line for line in measured[2] if "6 mixed" in line]
    assert "warming up" in told[0]
    assert "warming up" in told[1]


def test_the_file_says_it_all(measured):
    found, out, _ = measured
    again = Comparison.load(out)
    assert again.is_whole
    assert not again.has_failures
    assert again.machine["copy_bandwidth"] > 1e9
    assert again.commit
    assert again.rows == found.rows
    assert [each.to_dict() for each in again.results] == [each.to_dict() for each in found.results]
    words = report.text(again)
    assert "identity, float32: all 6 answers identical: hf, course" in words
    assert comparison_chart(again).png().startswith(b"\x89PNG")


def test_an_interruption_keeps_what_was_measured(tmp_path, small_model):
    out = tmp_path / "out.json"

    def say(line):
        if line.startswith("course: 6 mixed") and "tok/s" in line:
            raise KeyboardInterrupt

    options = compare.Options(replace(TINY, identity=(0, 0)), ("course",), model=str(small_model), out=out)
    found = compare.compare(options, say)
    assert not found.is_whole
    assert len(Comparison.load(out).of("course", "6 mixed").repetitions) == 1


def test_rates_requests_and_runs_are_asked_for(small_model):
    asked = {"rates": ("20", "50%"), "online_requests": 3, "peak": Peak(80.0, "given"), "runs": 2}
    asked["model"] = str(small_model)
    small = replace(TINY, identity=(0, 0))
    found = compare.compare(
        compare.Options(small, ("course",), ("online",), repeat=1, **asked), lambda line: None
    )
    assert [(row.name, row.requests) for row in found.rows] == [("online 20/s", 3), ("online 40/s", 3)]
    assert all(len(each.repetitions) == 2 for each in found.results)
    assert found.how["peak"] == {"rate": 80.0, "source": "given"}
    assert "of 80 requests a second, the peak; given" in report.text(found)


@pytest.mark.parametrize("preset", presets.PRESETS.values(), ids=lambda preset: preset.name)
def test_a_chain_changes_one_option_a_link(preset):
    """The CPU's chain, where there are no graphs, goes from paging to the whole engine in one."""
    links = [entry(name) for name in preset.split_chain if name.startswith("course")]
    for before, after in pairwise(links):
        if (preset.name, after.name) == ("cpu", "course"):
            continue
        options = before.all_options, after.all_options
        changed = [name for name in options[1] if options[0].get(name) != options[1][name]]
        assert len(changed) == 1, (before.name, after.name, changed)


@pytest.mark.prove
def test_sampled_rows_are_for_engines_that_sample(small_model):
    small = replace(TINY, identity=(0, 0), fixed_requests=(3,), fixed=4)
    options = compare.Options(
        small, ("hf", "course"), ("sampled",), model=str(small_model), repeat=1, is_timed=False
    )
    found = compare.compare(options, lambda line: None)
    names = [row.name for row in found.rows]
    assert names[0] == "6 mixed (temperature 0.7)"
    assert names[1:] == ["3 x 4 (top-p 0.95)", "3 x 4 (top-k 50)", "3 x 4 (5 logprobs)"]
    for row in found.rows:
        assert found.of("hf", row.name) is None
        assert found.of("course", row.name).trace.tokens == row.output_tokens
    assert not found.agreement  # drawn tokens say nothing, and of one engine there is no pair


def test_a_peak_that_cannot_be_measured_is_asked_for(monkeypatch):
    monkeypatch.setenv("LESSONLIB_VLLM_PYTHON", "no-such-python")
    options = compare.Options(TINY, ("course",), ("online",), rates=("70%",))
    with pytest.raises(CourseError, match="no such program"):
        compare.compare(options, lambda line: None)


@pytest.mark.prove
def test_one_that_cannot_run_leaves_the_others(monkeypatch, small_model):
    monkeypatch.setenv("LESSONLIB_VLLM_PYTHON", "no-such-python")
    options = compare.Options(replace(TINY, repeat=1), ("vllm", "course"), model=str(small_model))
    found = compare.compare(options, lambda line: None)
    assert "no such program" in found.failures["vllm"]
    assert found.is_refused
    assert found.of("course", "6 mixed").repetitions
    assert "vllm did not run: " in report.text(found)


# ----- the record -----


def made(rate=100.0, row="4 x 8", contender="course", **more):
    run = Repetition(0, 0, 32 / rate, 32, 32)
    return Result(
        contender,
        row,
        [run],
        versions={"torch": "1"},
        latencies=Latencies("", [1.0], [], {"p99": 0.1}),
        **more,
    )


def comparison(*results, rows=("4 x 8",)):
    online = [name == "online" for name in rows]
    facts = [
        RowFacts(
            name, "online" if arrives else "sweep", 4 if arrives else int(name.split()[0]), 12, 32, rate=1.0
        )
        for name, arrives in zip(rows, online, strict=True)
    ]
    return Comparison(
        "2026-01-01", "lesson compare", "c0ffee", "cpu", "smollm2", rows=facts, results=list(results)
    )


def test_a_result_in_figures():
    result = Result("hf", "row", [Repetition(n, 0, s, 100, 150) for n, s in enumerate((1.0, 2.0, 4.0))])
    assert (result.seconds, result.rate, result.raw_rate, result.spread) == (2.0, 50.0, 75.0, (25.0, 100.0))
    assert result.dollars_per_million == pytest.approx(30_000 / (30 * 86_400) / 50 * 1e6)
    assert math.isnan(Result("hf", "row").rate)


@pytest.mark.parametrize(("last", "is_saturated"), [(0.2, False), (0.29, False), (0.4, True), (4.0, True)])
def test_a_queue_that_grows_is_saturated(last, is_saturated):
    """5 requests, 2 a second: the last one comes after 2 s. It may wait 5% of that longer than the first did."""
    row = RowFacts("online 2/s", "online", 5, 5, 32, rate=2.0)
    latencies = Latencies("", [0.2, 0.2, 0.2, 0.2, last], [0.1], {"p99": 0.1})
    found = Comparison("2026-01-01", "", "", "cpu", "smollm2", rows=[row])
    found.results = [Result("course", row.name, [Repetition(0, 0, 4.0, 32, 32)], latencies=latencies)]
    pace = found.pace("course", row.name)
    assert pace.started == pytest.approx(4 / (2 + last - 0.2))
    assert (pace.offered, pace.finished, pace.is_saturated) == (2.0, 1.25, is_saturated)
    assert ("  saturated\n" in report.text(found)) == is_saturated
    assert found.pace("vllm", row.name) is found.pace("course", "elsewhere") is None


def ridden(rate, contender, steps):
    """A result with a Trace of so many steps, of one request of 32 tokens and 32 fillers of a token each."""
    trace = TraceBuilder(Header(1, "seconds"), [1], [0.0])
    for _ in range(steps):
        trace.end_step(0, 1)
    return made(rate, contender=contender, trace=trace.build())


def test_a_split_multiplies_to_the_whole():
    found = comparison(ridden(10.0, "hf", 64), ridden(30.0, "course", 32), made(contender="hf-cb"))
    first, last = split(found, "4 x 8")
    assert (first.speed, first.steps, first.seconds_per_step) == (1.0, 64, 0.05)
    assert (last.fewer_steps, last.quicker_steps) == (2.0, pytest.approx(1.5))
    assert last.speed == pytest.approx(last.rate / first.rate)
    assert last.speeds == (pytest.approx(3.0), pytest.approx(3.0))
    assert not first.is_draw
    assert not last.is_draw
    assert waterfall([first, last], "Thrice", source="test").png()
    with pytest.raises(CourseError, match="hf-cb has no timed run with a Trace"):
        split(found, "4 x 8", ["hf-cb"])
    with pytest.raises(CourseError, match="no contender finished row 'other'"):
        split(found, "other")


def test_a_link_within_its_spread_is_a_draw():
    slower, faster = ridden(10.0, "hf", 64), ridden(12.0, "course", 64)
    slower.repetitions += made(13.0).repetitions
    faster.repetitions += made(14.0).repetitions
    _, last = split(comparison(slower, faster), "4 x 8")
    assert last.is_draw
    assert last.speeds == (pytest.approx(12 / 13), pytest.approx(14 / 10))
    found = comparison(slower, faster)
    found.rows[0] = replace(found.rows[0], kind="split")
    assert "a draw" in report.text(found)
    assert waterfall(split(comparison(slower, faster), "4 x 8"), "A draw", source="test").png()
    assert [factor(0.984, 0.984), factor(1.26, 1.4), factor(118, 240)] == [
        "× 0.98",
        "× 1.3 to 1.4",
        "× 118 to 240",
    ]


def test_a_static_batch_leaves_a_trace():
    row = Row("row", [[1, 2], [3], [4]], [1, 3, 2])
    batches = [BatchTimes(range(2), 0.0, [1.0, 1.5, 2.0]), BatchTimes(range(2, 3), 3.0, [3.5, 5.0])]
    trace = static_trace(row, Header(2, "seconds"), batches)
    assert trace.output_tokens().tolist() == row.max_tokens
    assert trace.token_times() == [[1.0], [1.0, 1.5, 2.0], [3.5, 5.0]]
    assert trace.rows(Kind.FINISH)["step"].tolist() == [0, 2, 4]
    assert trace.rows(Kind.BOARD)["step"].tolist() == [0, 0, 3]
    assert trace.steps["running"].tolist() == [2, 1, 1, 1, 1]
    assert trace.steps["waiting"].tolist() == [1, 1, 1, 0, 0]
    assert trace.utilization == 6 / (2 * 5)


def test_latencies_count_from_arrival():
    found = Latencies.of([[1.0, 1.5, 2.5], [4.0], []], [0.5, 1.0, 2.0], "test")
    assert found.ttft == [0.5, 3.0]
    assert found.tpot == [0.75]
    assert found.gaps["max"] == 1.0
    assert Latencies.of([], [], "nobody looked") is None


def test_another_schema_is_refused(tmp_path):
    path = comparison(made()).save(tmp_path / "c.json")
    data = json.loads(path.read_text())
    path.write_text(json.dumps({**data, "schema": 0}))
    with pytest.raises(CourseError, match="has schema 0, this course reads 1"):
        Comparison.load(path)
    path.write_text("[]")
    with pytest.raises(CourseError, match="is no comparison"):
        Comparison.load(path)
    with pytest.raises(CourseError, match="cannot read"):
        Comparison.load(tmp_path / "none.json")


def test_what_changed():
    old, new = comparison(made(100)), comparison(made(150, contender="course"))
    new.results[0].versions = {"torch": "2"}
    words = report.against(new, old)
    assert "x1.50" in words
    assert "torch of course: 1 -> 2" in words
    assert "no row and contender in both" in report.against(comparison(), old)


def half(folder, name, *contenders, **changes):
    """Those contenders' part of the recorded split, as a file of its own."""
    found = Comparison.load(ROOT / "benchmarks" / "results" / "compare_cpu_split.json")
    results = [each for each in found.results if each.contender in contenders]
    machine = {**found.machine, "copy_bandwidth": 1e9 * len(results)}
    part = replace(found, results=results, machine=machine, command=f"lesson {name}", **changes)
    return part.save(folder / f"{name}.json")


def test_two_calls_make_one_split(tmp_path, capsys):
    first, rest = ("hf", "course-static"), ("course-continuous", "course-paged", "course", "vllm")
    files = [half(tmp_path, "first", *first), half(tmp_path, "rest", *rest)]
    out = tmp_path / "whole.json"
    words = ["compare", "--merge", ",".join(map(str, files)), "--json", str(out)]
    assert main(words) == 0
    assert "x 1.83" in capsys.readouterr().out
    whole, record = Comparison.load(out), Comparison.load(ROOT / "benchmarks/results/compare_cpu_split.json")
    assert split(whole, whole.rows[0].name) == split(record, record.rows[0].name)
    assert whole.command == "lesson first; lesson rest"
    assert [each["copy_bandwidth"] for each in whole.how["merged"]] == [2e9, 4e9]
    assert whole.rows[0].floor_seconds == record.rows[0].floor_seconds


def test_what_was_not_measured_alike_is_not_merged(tmp_path, capsys):
    mine = half(tmp_path, "mine", "hf")
    how = Comparison.load(mine).how
    others = {
        "commit is": half(tmp_path, "commit", "course", commit="c0ffee"),
        "model is": half(tmp_path, "model", "course", model="another"),
        "seed is": half(tmp_path, "seed", "course", how={**how, "seed": 3}),
        "is in two of the files": half(tmp_path, "again", "hf", "course"),
        "is other work": half(tmp_path, "work", "course", rows=[RowFacts("32 in 4 slots", "split", 1, 1, 1)]),
        "cannot read": tmp_path / "none.json",
    }
    for words, other in others.items():
        assert main(["compare", "--merge", f"{mine},{other}"]) == 2
        told = capsys.readouterr().err
        assert words in told
    assert main(["compare", "--merge", str(mine)]) == 2
    assert "name two or more" in capsys.readouterr().err


def test_out_of_memory_is_a_point_on_the_plot():
    full = Result("hf", "8 x 8", failure="out of memory at batch 8", is_out_of_memory=True)
    results = made(), made(90, contender="hf"), made(120, "8 x 8"), full, made(row="online")
    found = comparison(*results, rows=("4 x 8", "8 x 8", "online"))
    assert not found.has_failures
    picture = comparison_chart(found)
    assert picture.png().startswith(b"\x89PNG")
    words = [text.get_text() for axes in picture.axes for text in axes.texts]
    assert "hf: out of memory" in words
    assert picture._suptitle.get_text() == "course gives 1.1 times the tokens of hf on 4 x 8"


@pytest.mark.parametrize("name", CONTENDERS)
def test_every_contender_can_be_drawn(name):
    """Those without a look of their own too, in bars, in lines and over arrivals."""
    assert comparison_chart(comparison(made(contender=name))).png().startswith(b"\x89PNG")
    assert look_of(name)["marker"]


@pytest.mark.parametrize(
    ("settings", "missing"),
    [
        ({"dtype": "float32"}, [*LIMITS[:4], "cache_tokens"]),
        ({**dict.fromkeys(LIMITS[:4]), "cache_tokens": 8}, []),
        ({**dict.fromkeys(LIMITS[:4]), "num_blocks": 8}, []),
        (dict.fromkeys(LIMITS[:4]), ["cache_tokens"]),
    ],
    ids=str,
)
def test_limits_that_an_engine_does_not_state_are_named(settings, missing):
    assert sizes.missing_settings(settings) == missing


@pytest.mark.prove
def test_an_engine_that_does_not_state_a_limit_fails_alone(monkeypatch, small_model):
    monkeypatch.setattr(sizes, "LIMITS", (*LIMITS, "max_riders"))
    small = replace(TINY, choices=(1, 2), mixed_requests=(2,), identity=(0, 0))
    options = compare.Options(small, ("hf",), repeat=1, is_timed=False, model=str(small_model))
    (result,) = compare.compare(options, lambda line: None).results
    assert (
        result.failure == "its settings lack max_riders: lessonlib/contenders/engine.py says what they hold"
    )


def test_nothing_to_draw():
    with pytest.raises(CourseError, match="nothing to draw"):
        comparison_chart(comparison())


# ----- what vLLM's scheduler does, as a Trace -----


def test_a_ride_planned_a_step_ahead():
    """a and b ride two slots, c waits; b is thrown out, comes back, and everyone gets home."""
    recorder = TraceRecorder(Header(slots=2, clock="seconds", maker="vllm"))
    for name in "abc":
        recorder.arrive(name, 3)

    def plan(preempted=(), **parts):
        state = QueueState(1, len(parts), 2, sum(part[0] for part in parts.values()), 8, len(preempted))
        recorder.plan({name: Scheduled(*part, 1) for name, part in parts.items()}, preempted, state, 9, 0.0)

    plan(a=(3, 0, 3), b=(3, 0, 3))
    plan(a=(1, 3, 3), b=(1, 3, 3))  # planned before the first step's tokens are known
    recorder.report({"a": 1, "b": 1}, [])
    plan(preempted=["b"], a=(1, 4, 4))
    recorder.report({"a": 1, "b": 1}, [])
    recorder.report({"a": 1}, ["a"])
    plan(b=(5, 0, 5), c=(3, 0, 3))
    recorder.report({"b": 1, "c": 1}, ["b", "c"])
    plan()  # nothing to do is no step
    trace = recorder.build()
    assert trace.num_steps == 4
    assert trace.output_tokens().tolist() == [3, 3, 1]
    boards, prefills = trace.rows(Kind.BOARD), trace.rows(Kind.PREFILL)
    assert list(zip(boards["request"], boards["step"], boards["slot"], strict=True)) == [
        (0, 0, 0), (1, 0, 1), (1, 3, 0), (2, 3, 1),
    ]  # fmt: skip
    assert prefills["tokens"].tolist() == [3, 3, 5, 3]
    assert trace.rows(Kind.PREEMPT)["step"].tolist() == [2]
    assert trace.rows(Kind.FINISH)["step"].tolist() == [2, 3, 3]
    assert trace.steps["running"].tolist() == [2, 2, 1, 2]
    assert trace.steps["held_by"].tolist() == [HeldBy.SLOTS, HeldBy.SLOTS, HeldBy.PREEMPTION, HeldBy.SLOTS]


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (QueueState(0, 2, 2, 8, 8), HeldBy.NOTHING),
        (QueueState(1, 2, 2, 8, 8), HeldBy.SLOTS),
        (QueueState(1, 1, 2, 8, 8), HeldBy.BUDGET),
        (QueueState(1, 1, 2, 3, 8, blocks_short=2), HeldBy.BLOCKS),
        (QueueState(1, 1, 2, 3, 8, preempted=1, blocks_short=2), HeldBy.PREEMPTION),
        (QueueState(1, 1, 2, 3, 8), HeldBy.UNKNOWN),  # what vLLM has beside these, such as a paused engine
    ],
)
def test_why_vllm_admits_none(state, reason):
    assert state.held_by is reason


# ----- as a person types it -----


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--contenders", "hf,tgi"), "unknown contender 'tgi'"),
        (("--contenders", "hf,hf"), "name each once"),
        (("--contenders", ""), "unknown contender ''"),
        (("--preset", "tpu"), "unknown preset 'tpu'"),
        (("--repeat", "0"), "repeat 0"),
        (("--against", "no-such-file.json"), "cannot read a comparison"),
        (("--json", "no/such/folder/out.json"), "cannot write"),
        (("--workload", "mixed,uphill"), "unknown workload 'uphill'"),
        (("--model", "no/such/model"), "no/such/model"),
        (("--rates", "fast", "--workload", "online"), "rate 'fast': give requests a second"),
        (("--rates", "0%", "--workload", "online"), "rate '0%'"),
        (("--rates", "8"), "ask for --workload online"),
        (("--peak", "5"), "ask for --workload online"),
        (("--runs", "0"), "runs 0"),
        (("--peak", "-3", "--rates", "70%", "--workload", "online"), "peak -3: give requests a second"),
        (("--peak", "no-such-file.json"), "cannot read a comparison"),
        (("--rows", "63 mixed"), "no row '63 mixed' in these workloads: there is 64 mixed"),
    ],
)
def test_bad_input_is_one_line_and_status_2(words, told):
    done = lesson("compare", "--contenders", "course", *words)
    assert done.returncode == 2
    assert told in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ("TIMESTAMP,ContextTokens\n2023-01-01 00:00:00,5\n", "lacks a column GeneratedTokens"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-01-01 00:00:00,5,\n", "line 2"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n", "no requests"),
    ],
    ids=["no column", "no value", "no rows"],
)
def test_a_trace_without_outputs_is_refused(tmp_path, lines, told):
    path, out = tmp_path / "trace.csv", tmp_path / "out.json"
    path.write_text(lines)
    out.write_text("what was measured yesterday")
    done = lesson("compare", "--contenders", "course", "--workload", f"trace:{path}", "--json", str(out))
    assert done.returncode == 2
    assert told in done.stderr.splitlines()[-1]
    assert str(path) in done.stderr.splitlines()[-1]
    assert out.read_text() == "what was measured yesterday"


@pytest.mark.parametrize("words", ["--against", "--peak"])
def test_a_result_of_another_schema_is_refused_before_anything_runs(tmp_path, words):
    path = comparison(made()).save(tmp_path / "old.json")
    path.write_text(path.read_text().replace('"schema": 1', '"schema": 2'))
    done = lesson_process("compare", "--contenders", "course", words, str(path))
    assert done.returncode == 2
    assert done.stderr == f"lesson: error: {path} has schema 2, this course reads 1: measure again\n"


@pytest.mark.prove
def test_a_vllm_of_another_version_is_refused_and_the_others_count(tmp_path, small_model):
    """A Python whose vLLM says 0.24.0: it is asked for its version before anything of it is imported."""
    about = tmp_path / "site" / "vllm-0.24.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.24.0\n")
    out = tmp_path / "out.json"
    words = (
        "--model",
        str(small_model),
        "--contenders",
        "vllm,course",
        "--workload",
        "fixed",
        "--repeat",
        "1",
    )
    python = {"LESSONLIB_VLLM_PYTHON": sys.executable, "PYTHONPATH": f"{about.parent}{os.pathsep}{ROOT}"}
    done = lesson_process("compare", *words, "--json", str(out), **python)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    found = Comparison.load(out)
    assert found.failures == {
        "vllm": "vLLM 0.24.0: the course runs 0.25.1 up to, not including, 0.33; run `make vllm`"
    }
    assert found.failures["vllm"] in done.stdout
    assert found.is_whole
    assert found.of("course", "64 x 32").repetitions


def test_pictures_are_not_needed_for_numbers():
    """A GPU machine may have neither matplotlib nor widgets."""
    code = "import sys; import lessonlib.contenders.compare, lessonlib.contenders.report; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert not {"matplotlib", "ipywidgets", "anywidget"} & set(done.stdout.split())


# ----- the capstone -----


@pytest.fixture(scope="module")
def own_folder(tmp_path_factory):
    """A student's exercise 03: the allocator and admission as they should be, preemption that throws out nobody."""
    folder = tmp_path_factory.mktemp("own")
    wrong = "\n\ndef preempt(running, waiting, free, block_size):\n    return running, waiting, free\n"
    text = (ROOT / "solutions" / "ex03.py").read_text(encoding="utf-8")
    (folder / "ex03.py").write_text(text + wrong, encoding="utf-8")
    return folder


def test_only_what_passes_rides_along(own_folder):
    own = check_own_parts(own_folder)
    assert {"free_list", "allocate", "append", "release", "admit"} <= set(own.functions)
    assert "preempt" not in own.functions
    assert [line.split(": ")[1].split(" (")[0] for line in own.lines] == ["yours", "yours", "the course's"]
    assert "failed: " in own.lines[2]
    loaded = load_functions(own.path, own.functions)
    assert hasattr(loaded, "admit")
    assert not hasattr(loaded, "preempt")


@pytest.mark.prove
def test_mine_says_the_same_as_the_course(own_folder, tmp_path, small_model):
    options = compare.Options(
        TINY, ("course", "mine"), model=str(small_model), own=own_folder, is_timed=False
    )
    found = compare.compare(options, lambda line: None)
    assert not found.has_failures
    assert all(each["same"] == each["requests"] for each in found.agreement if each["dtype"] == "float32")
    assert "mine: ex03.3" in report.text(found)
    with pytest.raises(CourseError, match=r"no ex03.py in .*: write it, or name another folder with --from"):
        check_own_parts(tmp_path)
