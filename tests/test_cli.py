"""The `lesson` command as a person types it."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import needs
import pytest
import torch
from command import lesson, lesson_process, options_of

from lessonlib import cli
from lessonlib.cli.simulate import REASONS
from lessonlib.trace import HeldBy

TWENTY = "687,527,433,252,280,80,106,62,181,659,537,734,427,504,778,597,524,457,469,751"


def simulate(*words):
    done = lesson("simulate", "--json", *words)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(("policy", "steps"), [("static", 2_216), ("continuous", 1_490)])
def test_simulate_twenty_riders(policy, steps):
    found = simulate("--policy", policy, "--slots", "8", "--lengths", TWENTY)
    assert (found["policy"], found["slots"], found["requests"]) == (policy, 8, 20)
    assert (found["steps"], found["tokens"]) == (steps, 9_045)
    assert found["utilization"] == pytest.approx(9_045 / (8 * steps), abs=1e-6)
    assert set(found["ttft_steps"]) == set(found["latency_steps"]) == {"p50", "p90", "p99"}


def test_simulate_draws_and_streams_are_seeded():
    words = ("--dist", "uniform:5:80", "--requests", "50", "--arrivals", "poisson:0.2", "--slots", "4")
    assert simulate(*words) == simulate(*words)
    assert simulate(*words) != simulate(*words, "--seed", "1")


def test_simulate_a_file_at_its_own_times(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-01-01 00:00:00,5,2\n2023-01-01 00:00:01,5,3\n"
    )
    together = simulate("--trace", str(path), "--slots", "1")
    spaced = simulate("--trace", str(path), "--slots", "1", "--arrivals", "trace", "--step-ms", "100")
    assert (together["steps"], spaced["steps"]) == (5, 13)


def test_simulate_writes_its_trace(tmp_path):
    lesson("simulate", "--lengths", "3,5", "--save", str(tmp_path / "ride.json"))
    assert json.loads((tmp_path / "ride.json").read_text())["header"]["slots"] == 8


@pytest.mark.parametrize("policy", ["continuous", "vllm"])
@pytest.mark.parametrize("memory", [(), ("--blocks", "9", "--hardware", "h100:llama-2-7b")])
def test_simulate_explains_every_row(policy, memory):
    words = ("--policy", policy, "--lengths", "3,5", *memory)
    rows, percentiles = lesson("simulate", *words).stdout.strip().split("\n\n")
    assert set(simulate(*words)) == {row.split()[0] for row in rows.splitlines()}
    cells = [re.split(r"\s{2,}", row) for row in rows.splitlines()]
    assert all(len(row) >= 3 and len(row[-1].split()) >= 3 for row in cells)
    assert "None" not in rows
    assert ("not counted here" in rows) == (not memory)
    assert "p99" in percentiles


def test_simulate_explains_every_column_of_several_policies():
    words = ("simulate", "--policy", "all", "--lengths", "3,5")
    table, meanings, percentiles = lesson(*words).stdout.split("\n\n")
    explained = {line.split("  ")[0] for line in meanings.splitlines()}
    titles = {title.removesuffix(" p50").removesuffix(" p99") for title in table.splitlines()[0].split("  ")}
    assert {title.strip() for title in titles} - {""} == explained
    assert "p99" in percentiles


def test_simulate_says_why_requests_wait():
    """The shares of one policy and of several, each reason explained, none that did not occur."""
    words = ("--lengths", "9,3,4,5", "--slots", "2")
    found = simulate("--policy", "static", *words)
    assert sum(found["held_by"].values()) == pytest.approx(1)
    text = lesson("simulate", "--policy", "static,continuous", *words).stdout
    held = "\n".join(text.split("\n\n")[3:])
    assert re.findall(r"^(\w+): ", held, re.MULTILINE) == ["slots", "batch"]
    assert set(found["held_by"]) == {"slots", "batch"}
    assert re.search(r"^continuous +\d+ +100.0% +-$", held, re.MULTILINE)
    one = lesson("simulate", "--policy", "static", *words).stdout
    assert re.search(r"^held_by +batch \d+.\d% +slots \d+.\d%", one, re.MULTILINE)
    assert "batch: a slot is free; the policy waits for the running batch to end" in one


def test_every_reason_is_explained():
    named = {reason.name.lower() for reason in HeldBy} - {"nothing"}
    assert set(REASONS) == named


def test_generate_answers_in_english(tmp_path, model_path):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("What is the capital of France?\n\nSay hello.\n")
    words = (
        "--model",
        str(model_path),
        "--prompts",
        str(prompts),
        "--max-tokens",
        "24",
        "--slots",
        "2",
        "--json",
    )
    done = lesson("generate", *words)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    first = found["outputs"][0]
    assert first["prompt"] == "What is the capital of France?"
    assert "Paris" in first["text"]
    assert first["finish_reason"] == "stop"
    assert sum(len(out["token_ids"]) for out in found["outputs"]) == found["tokens"]
    assert found["seconds"] > 0


def test_generate_prints_words_as_they_come_in_the_order_of_the_prompts(tmp_path, model_path):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("Tell me a story.\nWhat is the capital of France?\n")
    options = (
        "--max-tokens",
        "12",
        "--max-num-seqs",
        "2",
        "--max-num-batched-tokens",
        "16",
        "--num-blocks",
        "40",
    )
    done = lesson("generate", "--model", str(model_path), "--prompts", str(prompts), *options)
    assert done.returncode == 0, done.stderr
    story, france, rates = done.stdout.split("\n\n")
    assert story.startswith("> Tell me a story.\n")
    assert france == "> What is the capital of France?\nThe capital of France is Paris."
    assert "tok/s" in rates


def test_doctor_names_every_part():
    done = lesson("doctor", "--json")
    found = json.loads(done.stdout)
    assert done.returncode == (1 if found["tier"] == "none" else 0)
    assert {"python", "torch", "SmolLM2", "sandbox", "NVIDIA GPU"} <= {
        part["name"] for part in found["parts"]
    }
    assert all(part["found"] or part["remedy"] for part in found["parts"])
    *_, none, python, gpu = lesson("doctor").stdout.splitlines()
    assert [line.replace("->", "").split()[0] for line in (none, python, gpu)] == ["none", "python", "gpu"]
    (here,) = (line for line in (none, python, gpu) if "->" in line)
    assert found["tier"] in here


@needs.NO_GPU.unless(not torch.cuda.is_available())
def test_bench_without_a_gpu_says_what_its_times_are_not(tmp_path):
    done = lesson("bench", "attention", "--json", "--out", str(tmp_path / "bench.json"))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found == json.loads((tmp_path / "bench.json").read_text())
    assert found["tier"] == "interpreter"
    assert "needs an NVIDIA GPU" in found["note"]
    assert all(row["us"]["ours"] > 0 for row in found["interpreter"])
    assert not {"decode", "prefill", "ladder", "copy_gb_s"} & set(found)
    assert {"machine", "versions", "date", "commit", "command"} <= set(found)
    shown = lesson("bench", "attention").stdout
    assert "tier interpreter" in shown
    assert "needs an NVIDIA GPU" in shown


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("simulate", "--lengths", "3,5", "--slots", "0"), "0 slots"),
        (("simulate", "--lengths", "3,5", "--slots", "99999999999"), "give at most"),
        (("simulate", "--dist", "azure", "--seed", "-1"), "a seed of -1"),
        (("simulate", "--lengths", "3", "--fill", "--policy", "continuous"), "only static waits"),
        (("simulate", "--lengths", "3", "--policy", "vllm", "--blocks", "1"), "pool of 1 blocks"),
        (("simulate", "--lengths", "99999999999999999999"), "below 2**63"),
        (("simulate", "--lengths", ""), "empty"),
        (("simulate", "--lengths", "3,-1"), "asks for -1"),
        (("simulate", "--lengths", "3,x"), "cannot read lengths '3,x'"),
        (("simulate", "--lengths", "3", "--policy", "magic"), "unknown policy 'magic'"),
        (("simulate", "--lengths", "3", "--arrivals", "trace"), "--trace FILE"),
        (("simulate", "--lengths", "3", "--arrivals", "poisson:x"), "poisson:RATE"),
        (("simulate", "--lengths", "3", "--arrivals", "late"), "unknown arrivals"),
        (("simulate", "--lengths", "3", "--save", "nowhere/ride.json"), "cannot write"),
        (("simulate", "--trace", "nowhere.csv"), "no trace file at nowhere.csv"),
        (("generate", "--prompts", "nowhere.txt"), "cannot read prompts"),
        (("generate", "--prompts", "pyproject.toml", "--max-tokens", "0"), "max_tokens 0"),
        (("generate", "--prompts", "pyproject.toml", "--temperature", "-1"), "temperature -1"),
        (("generate", "--prompts", "pyproject.toml", "--device", "tpu"), "device 'tpu'"),
        (("generate", "--prompts", "pyproject.toml", "--save", "nowhere/ride.json"), "cannot write"),
        (("generate", "--prompts", "pyproject.toml", "--attention", "magic"), "attention 'magic'"),
        (("generate", "--prompts", "pyproject.toml", "--model", "no-such-model"), "no-such-model"),
        (("simulate",), "give --lengths 3,5,7, --dist azure or --trace FILE"),
        (("simulate", "--lengths", "3", "--dist", "azure"), "--lengths and --dist: give one of them"),
        (("simulate", "--lenghts", "3,5"), "no such option '--lenghts'. (Did you mean one of: '--lengths'"),
        (("simulate", "--slotts", "3"), "'--slots'"),
        (("simulate", "--lengths", "--policy", "static"), "'--lengths' needs a value"),
        (("simulate", "--lengths", "3", "--slots"), "'--slots' needs a value"),
        (("simulate", "--lengths", "3", "--slots", "x"), "'--slots': 'x' is not a valid integer"),
        (("simulate", "--lengths", "3", "4"), "unexpected extra argument (4); `lesson simulate --help`"),
        (("simulat",), "no such command 'simulat'. Did you mean 'simulate'? `lesson --help`"),
        (("bench",), "type `lesson bench attention` or `lesson bench engine` or `lesson bench policies`"),
        (("bench", "atention"), "Did you mean 'attention'?"),
        (("hint",), "lesson hint needs TASK, for example: lesson hint ex01.1"),
        (
            ("grade", "submissions"),
            "lesson grade needs --out, for example: lesson grade submissions --out grades",
        ),
        (("grade", "x", "--out", "y", "--workers", "1", "--scheduler", "z"), "--workers and --scheduler"),
        (
            ("generate",),
            "lesson generate needs --prompts, for example: lesson generate --prompts prompts.txt",
        ),
        (("check", "ex99"), "ex99"),
        (("bench", "attention", "--out", "nowhere/bench.json"), "cannot write nowhere/bench.json"),
    ],
)
def test_bad_input_is_one_line_and_status_two(words, said):
    done = lesson(*words)
    assert done.returncode == 2
    (complaint,) = done.stderr.splitlines()
    assert complaint.startswith("lesson: error: ")
    assert said in complaint


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (("simulate", "--lengths", "3,5"), 0),
        (("check", "ex01.1", "--from", "{folder}"), 1),
        (("simulate", "--lengths", "3,x"), 2),
        (("check", "ex01.1", "--bogus"), 2),
    ],
)
def test_a_process_ends_as_the_command_does(words, status, tmp_path):
    (tmp_path / "ex01.py").write_text(
        "def static_utilization(lengths, slots):\n    raise NotImplementedError\n"
    )
    words = [word.format(folder=tmp_path) for word in words]
    alone, here = lesson_process(*words), lesson(*words)
    assert alone.returncode == here.returncode == status
    assert (alone.stdout, alone.stderr) == (here.stdout, here.stderr)


def test_without_arguments_every_command_is_listed_on_a_line_of_its_own() -> None:
    done = lesson()
    assert (done.returncode, done.stdout, done.stderr) == (0, lesson("--help").stdout, "")
    for name in cli.lesson.commands:
        (line,) = re.findall(rf"^  {name} .*$", done.stdout, re.MULTILINE)
        assert len(line) <= 80
        assert lesson(name, "-h").returncode == 0
    order = [done.stdout.index(f"\n  {name} ") for name in ("start", "check", "simulate", "compare", "grade")]
    assert order == sorted(order)


def test_options_that_take_several_values_and_names_cut_short() -> None:
    words = ("grade", "all.zip", "--exercises", "ex01", "ex02.1", "--out", "grades", "--regrade", "ada", "bo")
    options = options_of(*words, "--work", "2")
    assert options["exercises"] == ("ex01", "ex02.1")
    assert options["regrade"] == ("ada", "bo")
    assert (options["submissions"], options["out"], options["workers"]) == ("all.zip", "grades", 2)
    assert options_of("generate", "--prompts=a.txt", "--max-num-seqs", "3")["max_num_seqs"] == 3


def test_the_command_starts_without_what_its_commands_need() -> None:
    heavy = "{'torch', 'transformers', 'matplotlib', 'distributed', 'numba', 'jupyterlab'}"
    program = f"import sys, lessonlib.cli; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_an_interrupt_is_one_line_and_status_130(monkeypatch) -> None:
    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("lessonlib.checks.hint", interrupt)
    done = lesson("hint", "ex01.1")
    assert (done.returncode, done.stderr.strip()) == (130, "lesson: interrupted")


def test_check_says_which_files_it_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my answers").mkdir()
    for name in ("ex01", "ex02"):
        (tmp_path / "my answers" / f"{name}.py").write_text("x = 1\n")
    monkeypatch.chdir(tmp_path)
    first, *_ = lesson("check", "ex01", "ex02.1", "ex03.1", "--from", "my answers").stdout.splitlines()
    folder = f"my answers{os.sep}"
    assert first == f"Files read: {folder}ex01.py, {folder}ex02.py"


def test_check_writes_json_and_junit_and_says_how_it_went(tmp_path: Path) -> None:
    files = tmp_path / "report.json", tmp_path / "report.xml"
    done = lesson("check", "ex01", "--from", "solutions", "--json", str(files[0]), "--junit", str(files[1]))
    assert done.returncode == 0, done.stderr
    assert "3 of 3 passed" in done.stdout
    assert json.loads(files[0].read_text())["exit_code"] == 0
    assert 'tests="3" failures="0"' in files[1].read_text()
    (tmp_path / "ex01.py").write_text("def drain(lengths, slots):\n    return '\\x00', chr(0)\n")
    failed = lesson("check", "ex01.3", "--from", str(tmp_path), "--json", "-", "--junit", str(files[1]))
    assert failed.returncode == 1
    assert json.loads(failed.stdout)["results"][0]["status"] == "failed"
    assert ElementTree.fromstring(files[1].read_text()).get("failures") == "1"
    assert lesson("check", "ex01.1", "--from", str(tmp_path)).returncode == 2  # it has no such function
    nowhere = lesson("check", "ex01", "--junit", str(tmp_path / "no" / "such.xml"))
    assert (nowhere.returncode, len(nowhere.stderr.splitlines())) == (2, 1)


def test_a_hint_and_the_worked_answer() -> None:
    assert "longest" in lesson("hint", "ex01.1", "2").stdout
    assert "def drain(" in lesson("hint", "ex01.3", "--solution").stdout
    assert lesson("hint", "ex01.3", "7").returncode == 2
