"""Every policy on the real engine: the record, its predictions and the report, on a small model of random weights."""

import json
from dataclasses import replace

import pytest

from lessonlib import cli, policy_bench
from lessonlib.errors import CourseError
from lessonlib.policy_bench import FIGURES, Load, Requests, bench_policies, report, summary
from lessonlib.scheduling.policies import POLICIES

SMALL = Load(
    slots=3, requests=12, output_tokens=(4, 12), shared_tokens=4, own_tokens=(2, 10), long_tokens=24, step_tokens=32,
    longest_at_once=1.5, rate=400.0, rounds=2, block_size=4,
)  # fmt: skip


@pytest.fixture(scope="module")
def measured(small_model):
    return bench_policies(
        ["static", "orca-max", "vllm", "sjf", "fair-shares"], str(small_model), "cpu", SMALL
    )


def test_the_record_has_all_that_a_reader_needs(measured):
    json.dumps(measured)
    assert {
        "machine",
        "date",
        "command",
        "commit",
        "versions",
        "threads",
        "model",
        "workload",
    } <= measured.keys()
    assert [row["policy"] for row in measured["rows"]] == ["static", "orca-max", "vllm", "sjf", "fair-shares"]
    assert measured["same_tokens"]
    for row in measured["rows"]:
        assert row["rounds"] == 2
        for key in FIGURES:
            assert row["measured"][key] > 0
            assert row["error"][key] == pytest.approx(row["predicted"][key] / row["measured"][key] - 1)
        assert sum(row["held_by"].values()) == pytest.approx(1, abs=1e-4)


def test_memory_is_short_where_it_is_not_set_aside(measured):
    """On the engine as in the simulator; steps of the same length would make the counts equal."""
    rows = {row["policy"]: row for row in measured["rows"]}
    for kind in ("measured", "predicted"):
        assert rows["static"][kind]["preemptions"] == rows["orca-max"][kind]["preemptions"] == 0
        assert rows["vllm"][kind]["preemptions"] > 0
    assert rows["orca-max"]["held_by"]["blocks"] > 0.3


def test_the_report_names_what_is_missed(measured):
    text = report(measured)
    for row in measured["rows"]:
        assert row["policy"] in text
    assert "the same tokens under every policy: yes" in text
    rows = [
        {"policy": "a", "error": dict.fromkeys(FIGURES, 0.05)},
        {"policy": "b", "error": dict.fromkeys(FIGURES, -0.3)},
    ]
    found = summary(rows)
    assert found["ttft_p99"] == {"median": 0.175, "worst": 0.3, "target": 0.15, "missed_by": ["b"]}


def test_requests_are_what_people_send():
    load = Load()
    drawn = Requests.draw(load, 1000, 0)
    again = Requests.draw(load, 1000, 0)
    assert drawn.prompts == again.prompts
    assert drawn.workload.output_tokens.tolist() == again.workload.output_tokens.tolist()
    assert set(drawn.workload.output_tokens.tolist()) <= set(load.output_tokens)
    assert drawn.users.count("few") == load.requests // 4
    assert drawn.prompts[0][: load.shared_tokens] == drawn.prompts[1][: load.shared_tokens]
    assert drawn.prompts[0][: load.shared_tokens] != drawn.prompts[3][: load.shared_tokens]
    assert max(map(len, drawn.prompts)) + load.limit == load.longest
    assert policy_bench.gpu_load().num_blocks < 64 * -(-policy_bench.gpu_load().longest // 16)


def test_bad_names_are_told_before_a_model_is_loaded(monkeypatch):
    monkeypatch.setattr(policy_bench, "load_model", lambda *_: pytest.fail("loaded"))
    with pytest.raises(CourseError, match="unknown policy 'vlm'"):
        bench_policies(["vllm", "vlm"])


def test_the_command(monkeypatch, tmp_path, capsys, measured):
    asked = []
    monkeypatch.setattr(policy_bench, "bench_policies", lambda *given: asked.append(given) or measured)
    out = tmp_path / "policies.json"
    assert cli.main(["bench", "policies", "--device", "cpu", "--out", str(out)]) == 0
    assert cli.main(["bench", "policies", "--policies", "vllm,sjf", "--model", "smollm2", "--json"]) == 0
    assert asked == [((), None, "cpu"), (["vllm", "sjf"], "smollm2", "auto")]
    assert json.loads(out.read_text())["rows"] == measured["rows"]
    assert "Measured, predicted" in capsys.readouterr().out


@pytest.mark.prove
def test_all_policies_ride_the_small_model(small_model):
    found = bench_policies((), str(small_model), "cpu", replace(SMALL, rounds=1))
    assert {row["policy"] for row in found["rows"]} == set(POLICIES) - {"continuous"}
    assert found["same_tokens"]
