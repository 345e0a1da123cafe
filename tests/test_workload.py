"""Lengths, arrivals and files."""

import numpy as np
import pytest

from lessonlib import workload as w
from lessonlib.errors import CourseError

GOOD = "TIMESTAMP,ContextTokens,GeneratedTokens\n"


@pytest.mark.parametrize("spec", ["uniform:50:800", "lognormal:100:1", "haiku-novel", "homework", "azure"])
def test_draws_are_seeded_and_in_range(spec):
    first, again, other = (w.draw_lengths(spec, 500, seed) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert first.dtype == np.int64
    assert first.min() >= 1


def test_distributions_have_the_shape_they_say():
    assert set(w.homework_lengths(300)) == {64, 256, 1024}
    assert np.mean(w.haiku_and_novel_lengths(20_000) == 1000) == pytest.approx(0.1, abs=0.01)
    assert np.median(w.lognormal_lengths(20_000, 100, 1.0)) == pytest.approx(100, rel=0.05)
    uniform = w.uniform_lengths(20_000, 50, 60)
    assert set(uniform) == set(range(50, 61))


def test_azure_quantiles_match_the_traces_published_mean():
    # 211 tokens on average, 1,000 at most.
    lengths = w.azure_lengths(100_000)
    assert lengths.mean() == pytest.approx(211, rel=0.02)
    assert lengths.max() <= 1_000


def test_poisson_has_its_rate_and_starts_at_zero():
    times = w.poisson_arrivals(20_000, 0.25)
    assert times[0] == 0
    assert np.diff(times).mean() == pytest.approx(4, rel=0.05)


def test_rows_and_columns_agree():
    rows = [w.Request(5, 7, 2.0, 1), w.Request(3, 4, 1.0)]
    columns = w.Workload.from_requests(rows)
    assert [r.arrival_time for r in columns] == [1.0, 2.0]
    assert columns[1].output_tokens == 7
    assert columns[1].priority == 1


def test_reads_a_trace_in_order_of_arrival(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(GOOD + "2023-11-16 18:15:47.5000000,10,3\n2023-11-16 18:15:46.0000000,20,4\n")
    trace = w.read_trace(path)
    assert trace.time_unit == "seconds"
    assert trace.arrival_time.tolist() == [0.0, 1.5]
    assert trace.output_tokens.tolist() == [4, 3]
    assert trace.in_steps(25).arrival_time.tolist() == [0.0, 60.0]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "lacks a column TIMESTAMP"),
        ("TIMESTAMP,ContextTokens\n", "lacks a column GeneratedTokens"),
        (GOOD, "no requests"),
        (GOOD + "2023-11-16 18:15:46,1,2\nyesterday,1,2\n", "line 3"),
        (GOOD + "2023-11-16 18:15:46,1\n", "line 2"),
        (GOOD + "2023-11-16 18:15:46,1,0\n", "line 2: 1 prompt and 0"),
    ],
)
def test_bad_files_name_the_line(tmp_path, content, words):
    path = tmp_path / "bad.csv"
    path.write_text(content)
    with pytest.raises(CourseError, match=words):
        w.read_trace(path)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: w.Workload.from_lengths([]), "empty"),
        (lambda: w.Workload.from_lengths([3, 0]), "request 1 asks for 0"),
        (lambda: w.Workload.from_lengths([2.5]), "whole numbers"),
        (lambda: w.Workload.from_lengths([3], [-1]), "prompt of -1"),
        (lambda: w.Workload.from_lengths([3, 4], [1]), "1 values for 2"),
        (lambda: w.Workload.from_lengths([3, 4], arrival_time=[2, 1]), "back in time"),
        (lambda: w.draw_lengths("zipf:2", 5), "unknown distribution"),
        (lambda: w.draw_lengths("uniform:5", 5), "cannot read"),
        (lambda: w.draw_lengths("uniform:9:5", 5), "from 9 to 5"),
        (lambda: w.draw_lengths("azure", 0), "0 requests"),
        (lambda: w.poisson_arrivals(5, 0), "rate of 0"),
        (lambda: w.read_trace("nowhere.csv"), "no trace file"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(CourseError, match=words):
        call()
