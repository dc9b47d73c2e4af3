"""Fetching models, from a folder and from a small hub on this machine."""

from __future__ import annotations

import dataclasses
import hashlib
import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from hpc.errors import ConfigError, DataError, VerificationError
from hpc.publish import digest_file
from sarhpc.cli import main
from sarhpc.stages.inputs import base_models as models
from sarhpc.stages.inputs.base_models import (
    FETCHED,
    MODELS,
    Model,
    cache_root,
    fetch,
    require_whole,
)
from sarhpc.stages.inputs.paths import embedded_root, model_folder

WEIGHTS = b"\x00weights" * 1000
CONFIG = b'{"a": 1}'
MODEL = Model(
    name="tiny",
    repository="someone/tiny",
    revision="0123456789abcdef0123456789abcdef01234567",
    licence="MIT",
    licence_url="https://example.org/licence",
    files=("LICENSE.md", "unet/config.json", "unet/w.safetensors"),
    sha256={"unet/w.safetensors": hashlib.sha256(WEIGHTS).hexdigest()},
    use="train.base_model",
)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    (folder / "unet").mkdir(parents=True)
    (folder / "unet" / "w.safetensors").write_bytes(WEIGHTS)
    (folder / "unet" / "config.json").write_bytes(CONFIG)
    (folder / "unet" / "w.bin").write_bytes(b"a pickle nobody asked for")
    return folder


def test_every_model_is_pinned_by_commit_licence_and_weights() -> None:
    for model in MODELS:
        assert len(bytes.fromhex(model.revision)) == 20
        assert model.licence
        assert model.licence_url.startswith("https://")
        weights = {name for name in model.files if name.endswith((".safetensors", ".bin"))}
        assert set(model.sha256) == weights, model.name
        assert all(len(bytes.fromhex(digest)) == 32 for digest in model.sha256.values())


def test_a_given_folder_is_copied_with_licence_and_checksums(source: Path, tmp_path: Path) -> None:
    folder = fetch(MODEL, tmp_path / "cache", source)
    document = json.loads((folder / FETCHED).read_text())
    assert document["revision"] == MODEL.revision
    assert document["licence"] == "MIT"
    assert set(document["files"]) == {"unet/config.json", "unet/w.safetensors"}
    assert not (folder / "unet" / "w.bin").exists()
    require_whole(MODEL, folder, deep=True)
    shutil.rmtree(source)
    assert fetch(MODEL, tmp_path / "cache", source) == folder, "it is there already"


def test_weights_that_are_not_the_pinned_ones_are_refused(source: Path, tmp_path: Path) -> None:
    (source / "unet" / "w.safetensors").write_bytes(b"other weights")
    with pytest.raises(VerificationError, match="pinned is"):
        fetch(MODEL, tmp_path / "cache", source)
    assert not (tmp_path / "cache" / "tiny").exists()
    (source / "unet" / "w.safetensors").write_bytes(WEIGHTS)
    fetch(MODEL, tmp_path / "cache", source)


def test_a_folder_without_a_file_is_refused(source: Path, tmp_path: Path) -> None:
    (source / "unet" / "config.json").unlink()
    with pytest.raises(DataError, match=r"unet/config\.json"):
        fetch(MODEL, tmp_path / "cache", source)


def test_what_was_damaged_since_is_found(source: Path, tmp_path: Path) -> None:
    folder = fetch(MODEL, tmp_path / "cache", source)
    weights = folder / "unet" / "w.safetensors"
    weights.write_bytes(WEIGHTS[:-1] + b"x")
    fetch(MODEL, tmp_path / "cache")
    with pytest.raises(VerificationError, match="another SHA-256"):
        require_whole(MODEL, folder, deep=True)
    weights.write_bytes(WEIGHTS[:-1])
    with pytest.raises(VerificationError, match="cut short"):
        fetch(MODEL, tmp_path / "cache")
    newer = dataclasses.replace(MODEL, revision="f" * 40)
    with pytest.raises(VerificationError, match="pinned is"):
        fetch(newer, tmp_path / "cache")


@pytest.mark.slow
def test_a_pickled_model_is_brought_as_safetensors(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file

    from sarhpc.captioning.captioners.blip import load_blip

    embedded, source = embedded_root() / "blip", tmp_path / "pickled"
    shutil.copytree(embedded, source)
    weights = load_file(source / "model.safetensors")
    (source / "model.safetensors").unlink()
    torch.save(weights, source / "pytorch_model.bin")
    model = dataclasses.replace(
        MODEL,
        files=("*.json", "pytorch_model.bin"),
        sha256={"pytorch_model.bin": digest_file(source / "pytorch_model.bin").sha256},
        pickled="pytorch_model.bin",
    )
    folder = fetch(model, tmp_path / "cache", source)
    assert not (folder / "pytorch_model.bin").exists()
    require_whole(model, folder, deep=True)
    state, told = load_blip(folder).model.state_dict(), load_blip(embedded).model.state_dict()
    assert all(torch.equal(state[name], told[name]) for name in told)


class Evil:
    """Would write a file if it were unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return (open, (self.path, "w"))


def test_no_code_of_a_fetched_pickle_runs(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    source, trap = tmp_path / "pickled", tmp_path / "sprung"
    shutil.copytree(embedded_root() / "blip", source)
    torch.save({"a": Evil(str(trap))}, source / "pytorch_model.bin")
    model = dataclasses.replace(
        MODEL, files=("*.json", "pytorch_model.bin"), sha256={}, pickled="pytorch_model.bin"
    )
    with pytest.raises(VerificationError, match="nothing in it was run"):
        fetch(model, tmp_path / "cache", source)
    assert not trap.exists()
    assert not (tmp_path / "cache" / "tiny").exists()


def test_a_run_names_a_fetched_model(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SARHPC_MODELS", str(tmp_path / "cache"))
    monkeypatch.setattr(models, "MODELS", (MODEL,))
    with pytest.raises(ConfigError, match="sarhpc fetch tiny"):
        model_folder("fetched:tiny")
    assert main(["fetch", "tiny", "--from", str(source), "--deep"]) == 0
    assert model_folder("fetched:tiny") == str(tmp_path / "cache" / "tiny")
    with pytest.raises(ConfigError, match="known: tiny"):
        model_folder("fetched:nosuch")


def test_the_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SARHPC_MODELS", raising=False)
    monkeypatch.setenv("HF_HOME", "/scratch/hf")
    assert cache_root() == Path("/scratch/hf/models")
    monkeypatch.setenv("SARHPC_MODELS", "/work/models")
    assert cache_root() == Path("/work/models")


class Hub(http.server.BaseHTTPRequestHandler):
    """The few answers of a model hub that a download needs."""

    files: ClassVar = {
        "unet/config.json": CONFIG,
        "unet/w.safetensors": WEIGHTS,
        "LICENSE.md": b"free",
    }

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        path = self.path.split("?")[0]
        api = f"/api/models/{MODEL.repository}"
        if path == f"{api}/revision/{MODEL.revision}":
            rows = [{"rfilename": name} for name in self.files]
            return self._send(
                json.dumps({"id": MODEL.repository, "sha": MODEL.revision, "siblings": rows}), body
            )
        if path == f"{api}/tree/{MODEL.revision}":
            rows = [{"type": "file", "path": name, "size": len(held), "oid": "0" * 40}
                    for name, held in self.files.items()]  # fmt: skip
            return self._send(json.dumps(rows), body)
        name = path.removeprefix(f"/{MODEL.repository}/resolve/{MODEL.revision}/")
        if name in self.files:
            return self._send(self.files[name], body)
        self.send_error(404)
        return None

    def _send(self, content: str | bytes, body: bool) -> None:
        held = content.encode() if isinstance(content, str) else content
        self.send_response(200)
        self.send_header("Content-Length", str(len(held)))
        self.send_header("ETag", f'"{hashlib.sha256(held).hexdigest()}"')
        self.send_header("X-Repo-Commit", MODEL.revision)
        self.end_headers()
        if body:
            self.wfile.write(held)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def hub() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def fetch_elsewhere(endpoint: str, root: Path) -> subprocess.CompletedProcess[str]:
    """Fetch in a process of its own: the hub's client reads its settings when imported."""
    code = (
        "import test_fetch; from pathlib import Path\n"
        "from sarhpc.stages.inputs.base_models import fetch\n"
        "from hpc.errors import HpcError\n"
        f"try: print(fetch(test_fetch.MODEL, Path({str(root)!r})))\n"
        "except HpcError as error: print(type(error).__name__, error)"
    )
    settings = {"HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": "1", "HF_HOME": str(root / "hf"),
                "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_XET": "1",
                "PYTHONPATH": f"{Path(__file__).parent}{os.pathsep}{Path.cwd()}"}  # fmt: skip
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **settings}
    )


def test_a_model_comes_from_its_hub_at_its_commit(hub: str, tmp_path: Path) -> None:
    done = fetch_elsewhere(hub, tmp_path)
    assert done.stdout.strip() == str(tmp_path / "tiny"), done.stderr
    assert (tmp_path / "tiny" / "unet" / "w.safetensors").read_bytes() == WEIGHTS
    assert (tmp_path / "tiny" / "LICENSE.md").read_bytes() == b"free"
    assert not (tmp_path / "tiny" / ".cache").exists()
    require_whole(MODEL, tmp_path / "tiny", deep=True)


@pytest.mark.slow
def test_without_a_network_the_way_out_is_told(tmp_path: Path) -> None:
    done = fetch_elsewhere("http://127.0.0.1:9", tmp_path)
    assert done.stdout.startswith("TransientError")
    assert "--from FOLDER" in done.stdout
