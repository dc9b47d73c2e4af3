"""Makes `run_0_1/`: a run stopped while it trains, and the same run stopped while it generates.

    python tests/golden/make_run_0_1.py FOLDER

was run with the code of commit c1fa759 (sarhpc 0.1.0), by which alone these files prove anything:
they are what users of that version have on their disks. Never make them again with another.

In `FOLDER/run_0_1` are then

    common/        the base model, configuration, archive and captioned shards of both
    training/      stage `train`: a checkpoint of two ranks, and steps left to do
    generation/    stages `train`, `export` and `generate`: some shards made, others planned
    expected.json  what `status` tells, and what a run reaches that nobody disturbs

The trees are laid over each other: `common` and `training` are one run, all three are the other.
Logs are left out, and so are empty folders. In place of the folder above the run stands STORED_AT
(see `relocation.py`), and HOST in place of the machine's name. The scripts that DeepSpeed puts into
each checkpoint are in there as `NAME.py.stored`, so that nobody takes them for code of ours.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from relocation import STORED_AT, relocate
from run_0_1_digests import arithmetic, generated, trained

HOST = "stored-host"
CAPTIONS = ["a lake", "a dense forest", "a crop field", "a town with houses", "a road", "a river"]
CONFIG = """\
simulate: {seed: 3, scenes: 2, scenes_per_line: 1, size_px: 96}
tile:
  tile_px: 32
  shard_samples: 8
  min_signal: 0.0
  max_saturated: 1.0
  split: {fractions: [0.5, 0.5, 0.0], cell_m: 200.0, buffer_m: 0.0}
caption: {captioner: truth, template: {token: "A SAR image of"}}
train:
  base_model: base
  global_batch: 4
  micro_batch: 1
  epochs: 1000
  max_steps: 10
  lr_unet: 1.0e-3
  lr_text_encoder: 1.0e-4
  warmup_steps: 2
  precision: fp32
  zero_stage: 2
  ema_decay: 0.5
  validation_every_steps: 5
  validation_prompts: [A SAR image of a lake]
  validation_seeds: [0, 1]
  validation_steps: 20
  tensorboard: false
generate: {prompts: [a lake, a town], images: 16, steps: 25, batch: 2, shard_samples: 2}
evaluate: {tiles: 8, bootstrap: 5, gallery: 1}
cluster: {executor: local, workers: 1, ranks: 2}
"""
"""Two scenes of 96 px, tiles of 32 px; names its base model by a relative path."""
COMMON = ("run.json", "config.yaml", "overrides.txt", "data/archive", "data/samples", "data/tiles",
          "simulate", "tile", "caption")  # fmt: skip
LEFT_OUT = shutil.ignore_patterns("logs", "dask", "heartbeat", ".lease*", "tensorboard")


def make(folder: Path) -> None:
    """Make everything in `folder`, which is new."""
    folder.mkdir(parents=True)
    stored = folder / "run_0_1"
    place = folder / "stopped"
    _make_base(place / "base")
    (place / "tiny.yaml").write_text(CONFIG)
    sarhpc(place, "init", "run", "--config", "tiny.yaml")
    for stage in ("simulate", "tile", "caption"):
        sarhpc(place, stage, "run", "--executor", "debug")
    calm = folder / "undisturbed"
    shutil.copytree(place, calm)
    relocate(calm / "run", str(place), str(calm))

    _stop_in(place, "train", lambda: _lines(place / "run/train/metrics.jsonl") >= 5)
    _store_common(place, stored / "common")
    _store(place, stored / "training", ["train"])
    expected: dict[str, Any] = {"training": {"status": status(place)}}
    sarhpc(place, "train", "run", "--wait")
    sarhpc(place, "export", "run", "--executor", "debug")
    _stop_in(place, "generate", lambda: len(_records(place)) >= 2)
    _store(place, stored / "generation", ["train", "export", "generate", "data/synthetic"])
    _remove_what_is_in(stored / "training", stored / "generation")
    expected["generation"] = {"status": status(place)}
    sarhpc(place, "generate", "run", "--wait")

    for stage in ("train", "export", "generate"):
        sarhpc(calm, stage, "run", "--wait")
    reached = {"training": trained(calm / "run"), "generation": generated(calm / "run")}
    assert trained(place / "run") == reached["training"]
    assert generated(place / "run") == reached["generation"]
    for part, end in reached.items():
        frozen = json.loads((place / "run/run.json").read_text())["fingerprint"]
        expected[part] |= {"fingerprint": frozen, "reached": end, "arithmetic": arithmetic()}
    (stored / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


def sarhpc(place: Path, *words: str) -> str:
    """What a command prints, run in the folder above the run as a user would."""
    done = subprocess.run(
        _command(*words), cwd=place, env=environment(), capture_output=True, text=True
    )
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(words)} ended with {done.returncode}:\n{done.stderr[-6000:]}")
    return done.stdout


def _command(*words: str) -> list[str]:
    return [sys.executable, "-m", "sarhpc.cli", *words]


def environment() -> dict[str, str]:
    """The environment of the commands: this code, one thread, no GPU, no network."""
    code = str(Path(__file__).resolve().parents[2])
    paths = os.pathsep.join([code, *filter(None, [os.environ.get("PYTHONPATH")])])
    fixed = {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu", "HF_HUB_OFFLINE": "1"}
    return {**os.environ, **fixed, "PYTHONPATH": paths}


def status(place: Path) -> dict[str, dict[str, Any]]:
    """Where each stage of the run in `place` stands, without ages and times."""
    shown = json.loads(sarhpc(place, "status", "run", "--json"))
    names = ("state", "done", "planned", "samples", "rejected", "failed", "attempts", "checkpoint")
    return {
        stage["name"]: {name: stage[name] for name in names}
        | {"steps": stage["course"] and [stage["course"]["done"], stage["course"]["goal"]]}
        for stage in shown["stages"]
    }


def _stop_in(place: Path, stage: str, reached: Callable[[], bool]) -> None:
    """Start a stage as a job of this machine, and end it as a batch system would."""
    # The job outlives its command, and would keep a pipe to it open.
    subprocess.run(_command(stage, "run"), cwd=place, env=environment(), check=True)
    attempts = place / "run" / stage / "attempts.jsonl"
    until = time.monotonic() + 300
    while not reached():
        assert not any("to" in row for row in _rows(attempts)), f"{stage} ended before its stop"
        assert time.monotonic() < until, f"{stage} did not get there"
        time.sleep(0.005)
    begun, *_ = _rows(attempts)
    os.kill(begun["pid"], signal.SIGTERM)
    while not any("to" in row for row in _rows(attempts)):
        assert time.monotonic() < until, f"{stage} did not stop"
        time.sleep(0.05)
    time.sleep(5)
    [end] = [row for row in _rows(attempts) if "to" in row]
    assert (end["exit"], end["stop"]) == (0, "TERMINATE"), end


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _lines(path: Path) -> int:
    return len(path.read_text().splitlines()) if path.exists() else 0


def _records(place: Path) -> list[Path]:
    return list((place / "run/generate/records").glob("*/[0-9]*.json"))


def _store_common(place: Path, to: Path) -> None:
    shutil.copytree(place / "base", to / "base")
    _store(place, to, COMMON)


def _store(place: Path, to: Path, names: Sequence[str]) -> None:
    for name in names:
        source, target = place / "run" / name, to / "run" / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=LEFT_OUT)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
    relocate(to / "run", str(place), STORED_AT)
    for host in ('"host": "{}"', '"host":"{}"'):
        relocate(to / "run", host.format(platform.node()), host.format(HOST))
    for script in sorted(to.rglob("*.py")):
        script.rename(f"{script}.stored")


def _remove_what_is_in(lower: Path, upper: Path) -> None:
    for path in sorted(p for p in upper.rglob("*") if p.is_file()):
        below = lower / path.relative_to(upper)
        if below.is_file() and below.read_bytes() == path.read_bytes():
            path.unlink()


def _make_base(folder: Path) -> None:
    """A Stable Diffusion bundle of random weights: 32 px images, 4 x 4 latents."""
    from sarhpc.diffusion.bundle import new_bundle, save_bundle
    from sarhpc.diffusion.config import AutoencoderShape, BundleConfig, TextShape, UNetShape
    from sarhpc.diffusion.tokenizer import train_clip_tokenizer

    shapes = BundleConfig(
        unet=UNetShape(4, [4, 8], [True, False], attention_heads=2, norm_groups=4),
        text=TextShape(hidden=16, layers=1, heads=2, intermediate=16, positions=24),
        vae=AutoencoderShape([4, 4, 4, 8], norm_groups=4, sample_size=32),
    )
    words = folder.parent / "words"
    save_bundle(
        new_bundle(shapes, train_clip_tokenizer(CAPTIONS, 540, words, max_length=24)), folder
    )
    shutil.rmtree(words)


if __name__ == "__main__":
    make(Path(sys.argv[1]).resolve())
