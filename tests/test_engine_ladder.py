"""The ladder from a static batch to the whole engine: real rides of a tiny model, and one of SmolLM2."""

import json
from dataclasses import replace
from itertools import pairwise

import needs
import numpy as np
import pytest
import torch

from lessonlib import cli
from lessonlib.engine import LLM, SamplingParams
from lessonlib.engine.model import Llama
from lessonlib.errors import CourseError
from lessonlib.ladder import (
    NEEDS_GPU,
    SHOWN,
    TARGET_ERROR,
    Ladder,
    bench_engine,
    decode_seconds,
    fit_costs,
    predict,
    report,
    rungs,
    rungs_with_settings,
)
from lessonlib.ladder_load import Load, Requests, config_json, cpu_load, gpu_load
from lessonlib.ladder_without import WHOLE, bench_without, variants
from lessonlib.ladder_without import report as without_report
from lessonlib.simulation.costs import MODELS, CostModel, ModelShape

TINY = ModelShape(2, 32, 4, 2, 8, 64, 128)
LOAD = Load(3, 6, 12, (3, 6, 12), 16, (2, 9), 40, step_tokens=256, chunk_tokens=16, repeats=1, block_size=8)
ON_GPU = torch.cuda.is_available()


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "config.json").write_text(json.dumps(config_json(TINY)))
    return folder


@pytest.fixture(scope="module")
def result():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS, "tiny", TINY)
        yield bench_engine("tiny", "cpu", LOAD)


def test_each_change_is_switched_off_alone():
    """The whole engine is the last rung, and a variant differs from it in what one rung changed."""
    (name, whole), *others = variants(LOAD)
    assert (name, whole.keys()) == (WHOLE, rungs_with_settings(LOAD)[-1][1].keys())
    changed = [{key for key in whole if settings[key] is not whole[key]} for _, settings in others]
    rung_changes = [set(rung.changes) for rung in rungs(LOAD)[1:]]
    assert changed == rung_changes


@pytest.mark.prove
def test_what_each_change_is_worth_beside_the_whole_engine(monkeypatch):
    monkeypatch.setitem(MODELS, "tiny", TINY)
    found = bench_without("tiny", "cpu", LOAD)
    rows = {row["without"]: row for row in found["rows"]}
    assert list(rows) == [WHOLE, "refilled slots", "paged memory", "chunked, mixed prefill", "prefix cache"]
    assert rows[WHOLE]["times_the_whole"] == {"median": 1.0, "least": 1.0, "most": 1.0}
    assert rows["refilled slots"]["steps"] > rows[WHOLE]["steps"]
    assert rows["paged memory"]["changes"]["policy"]["name"] == "sarathi-reserved"
    assert all(len(row["runs_seconds"]) == 2 for row in rows.values())
    assert "without" in without_report(found)
    json.dumps(found)


def test_a_rung_changes_one_thing_and_rides_with_all_that_changed_before():
    there = rungs_with_settings(LOAD)
    assert [rung.name for rung, _ in there] == [rung.name for rung in rungs(LOAD)]
    for (_, before), (rung, settings) in pairwise(there):
        assert {key for key in settings if settings[key] is not before.get(key)} == set(rung.changes)
    # Memory taken by the block is what lets more riders board; everything else is one setting.
    assert [len(rung.changes) for rung, _ in there] == [1, 1, 2, 1, 1, 1, 1]
    assert all(settings["num_blocks"] == LOAD.num_blocks for _, settings in there)
    assert there[-1][1]["async_scheduling"]
    assert not there[-1][1]["enforce_eager"]


def test_every_rung_gives_the_same_tokens_and_says_what_it_measured(result):
    measured = [row for row in result["rungs"] if row["measured"]]
    assert len(measured) == 5
    assert {row["tokens"] for row in measured} == {sum(Requests.draw(LOAD, 128, 0).output_tokens)}
    for row in measured:
        assert row["finished"] == LOAD.requests
        assert row["seconds"] == min(row["runs_seconds"]) > 0
        assert row["seconds"] == pytest.approx(row["steps"] * row["seconds_per_step"])
        assert row["tokens_per_second"] == pytest.approx(row["tokens"] / row["seconds"])
        assert row["roofline_share"] > 0
        assert {"p50", "p90", "p99"} == set(row["ttft_seconds"]) == set(row["itl_seconds"])
        assert row["shows"] in SHOWN


def test_rungs_that_need_a_gpu_say_so(result):
    missing = [row for row in result["rungs"] if not row["measured"]]
    assert [(row["rung"], row["why"]) for row in missing] == [
        ("+ graphs", NEEDS_GPU),
        ("+ overlapped host", NEEDS_GPU),
    ]


def test_a_speed_up_is_fewer_steps_times_quicker_steps(result):
    first, *others = [row for row in result["rungs"] if row["measured"]]
    assert first["against_before"] is None
    for row in others:
        made_of = row["against_before"]
        assert made_of["speed"] == pytest.approx(made_of["fewer_steps"] * made_of["quicker_steps"])


def test_the_changes_do_what_they_are_for(result):
    static, continuous, paged, chunked, cached = (row for row in result["rungs"] if row["measured"])
    assert continuous["utilization"] > static["utilization"]
    assert paged["mean_running"] > continuous["mean_running"]
    assert paged["steps"] < continuous["steps"] < static["steps"]
    assert cached["prefill_tokens"] < chunked["prefill_tokens"] == paged["prefill_tokens"]


def test_the_simulator_knows_every_step_and_notebook_01_static_batching(result):
    for row in result["rungs"][:5]:
        assert row["predicted"]["steps_error"] == 0
    assert result["rungs"][0]["predicted"]["utilization_notebook_01_error"] == pytest.approx(0)


def test_the_result_names_its_circumstances(result):
    for key in ("machine", "versions", "date", "commit", "command", "tier", "threads", "model", "dtype"):
        assert result[key]
    assert result["copy_gb_s"] > 0
    assert result["workload"]["requests"] > result["workload"]["paged_slots"] > result["workload"]["slots"]
    assert json.loads(json.dumps(result))["rungs"] == result["rungs"]


def test_the_report_has_every_rung(result):
    text = report(result)
    for row in result["rungs"]:
        assert text.count(row["rung"]) >= (3 if row["measured"] else 1)
    assert NEEDS_GPU in text


@pytest.mark.parametrize("load", [cpu_load(), gpu_load(), gpu_load(2)])
def test_requests_outnumber_slots_and_fit(load):
    requests = Requests.draw(load, 128, 0)
    lengths = [len(ids) + count for ids, count in zip(requests.prompts, requests.output_tokens, strict=True)]
    assert max(lengths) <= load.longest
    assert len(lengths) > load.paged_slots > load.slots
    assert len({tuple(ids[: load.shared_tokens]) for ids in requests.prompts}) == 1
    other = Requests.draw(load, 128, 1)
    assert other.prompts[0][: load.shared_tokens] == requests.prompts[0][: load.shared_tokens]
    assert other.prompts != requests.prompts


def test_a_prediction_reads_the_settings():
    cost = CostModel(1e-3, 4e-3, 1e-5, 1e-7)
    requests = Requests.draw(LOAD, 128, 0)
    rides = [predict(requests, settings, cost) for _, settings in rungs_with_settings(LOAD)[:5]]
    assert rides[1].span < rides[0].span
    assert [ride.header.slots for ride in rides] == [3, 3, 6, 6, 6]


def test_a_decode_steps_time_is_told_by_how_many_ride():
    requests, settings = Requests.draw(LOAD, 128, 0), rungs_with_settings(LOAD)[1][1]
    ride = predict(requests, settings, CostModel(1e-3, 0.0, 1e-2, 0.0, per_decode_row=1e-4))
    told = decode_seconds([ride, ride])
    assert told == pytest.approx({riders: 1e-3 + 1e-4 * int(riders) for riders in told})
    assert max(map(int, told)) == settings["max_num_seqs"]


def on_a_host_of_changing_speed(ride, rng):
    """The ride with its steps drifting by some 8%, and now and then one that was held up."""
    drift = np.zeros(ride.num_steps)
    for step in range(1, ride.num_steps):
        drift[step] = 0.98 * drift[step - 1] + rng.normal(0, 0.016)
    held_up = np.where(rng.random(ride.num_steps) < 0.04, rng.uniform(1.2, 1.6, ride.num_steps), 1.0)
    return replace(ride, steps={**ride.steps, "duration": ride.steps["duration"] * np.exp(drift) * held_up})


@pytest.mark.parametrize("seed", range(3))
def test_a_slow_minute_is_not_taken_for_the_cost_of_riders(seed):
    """The GPU's load. Two of the fitted rides begin slowly, just where most riders are on board."""
    rng, load, eager, graphs = (
        np.random.default_rng(seed),
        gpu_load(),
        CostModel(0.0175, 0.0, 2.3e-5, 2e-7),
        CostModel(0.0055, 0.0, 2.6e-5, 1.4e-7),
    )
    timed = Requests.draw(load, 32_000, 0)
    other = Requests.draw(replace(load, requests=load.requests * 2 // 3), 32_000, 1)
    steps = rungs_with_settings(load)
    rides, spans = {}, {}
    for rung, settings in steps:
        true = eager if settings["enforce_eager"] else graphs
        fitted, ridden = (predict(requests, settings, true) for requests in (other, timed))
        rides[rung.name] = [on_a_host_of_changing_speed(fitted, rng) for _ in range(load.repeats)]
        spans[rung.name] = min(
            on_a_host_of_changing_speed(ridden, rng).steps["duration"].sum() for _ in range(load.repeats)
        )
    for name in ("static", "+ paged"):
        rides[name][0].steps["duration"][:80] *= 2.3
    costs = fit_costs(rides, steps)
    assert costs["static"] == costs["continuous"] != costs["+ paged"] == costs["+ prefix cache"]
    assert costs["+ prefix cache"] != costs["+ graphs"] != costs["+ overlapped host"]
    for rung, settings in steps:
        told = predict(timed, settings, costs[rung.name]).span
        assert told == pytest.approx(spans[rung.name], rel=TARGET_ERROR), rung.name


@pytest.mark.parametrize(("limit", "climbs_made"), [(0.0, 1), (600.0, 2)])
def test_a_climb_that_would_end_too_late_is_not_begun(tiny_folder, limit, climbs_made):
    model = Llama(tiny_folder, load_format="dummy")
    rows = Ladder(model, replace(LOAD, repeats=2, time_limit=limit), 1e9).measure()
    assert [len(row["runs_seconds"]) for row in rows if row["measured"]] == [climbs_made] * 5


# ----- what the ladder asks of LLM -----


def test_a_forgotten_prefix_is_read_again(tiny_folder):
    model = Llama(tiny_folder, load_format="dummy")
    llm = LLM(
        model,
        max_model_len=64,
        num_blocks=20,
        block_size=4,
        enable_prefix_caching=True,
        skip_tokenizer_init=True,
    )
    prompt, params = [{"prompt_token_ids": list(range(10))}], SamplingParams(max_tokens=2, temperature=0)

    def cached() -> int:
        return llm.generate(prompt, params, use_tqdm=False)[0].num_cached_tokens

    assert [cached(), cached()] == [0, 8]
    llm.reset_prefix_cache()
    assert cached() == 0
    llm.add_request("rider", prompt[0], params)
    with pytest.raises(CourseError, match="are running"):
        llm.reset_prefix_cache()


# ----- the command -----


def test_the_command_writes_what_it_prints(monkeypatch, tmp_path, capsys, result):
    monkeypatch.setattr("lessonlib.ladder.bench_engine", lambda model, device: result)
    out = tmp_path / "engine.json"
    assert cli.main(["bench", "engine", "--json", "--out", str(out)]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(out.read_text())
    assert cli.main(["bench", "engine"]) == 0
    assert "Measured" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--out", "nowhere/engine.json"], "cannot write nowhere/engine.json"),
        (["--device", "abacus"], "device 'abacus'"),
        pytest.param(["--device", "cuda"], "no NVIDIA GPU", marks=needs.NO_GPU.unless(not ON_GPU)),
    ],
)
def test_bad_input_is_one_line(arguments, words, capsys):
    assert cli.main(["bench", "engine", *arguments]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


# ----- the course's model -----


@pytest.mark.prove
def test_smollm2_climbs_in_three_minutes_and_is_predicted(model_path):
    result = bench_engine(str(model_path), "cpu")
    assert result["seconds"] < 180
    for row in result["rungs"][:5]:
        assert abs(row["predicted"]["seconds_error"]) <= TARGET_ERROR, row["rung"]
