"""What a run has reached, in digests and numbers that tell any other result apart."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import struct
import tarfile
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors.numpy import load_file

NUMBERS = ("step", "epoch", "loss", "grad_norm", "lr_unet", "lr_text_encoder", "ema_decay")


def trained(run: Path) -> dict[str, Any]:
    """Digests of the exported weights by file, and the numbers of each training step."""
    rows = [json.loads(line) for line in (run / "train/metrics.jsonl").read_text().splitlines()]
    model = run / "export/model"
    return {
        "weights": {
            path.relative_to(model).as_posix(): digest_of_tensors(path)
            for path in sorted(model.rglob("*.safetensors"))
        },
        "rows": [{name: row[name] for name in NUMBERS} for row in rows],
    }


def largest_difference(
    name: str, now: Sequence[Mapping[str, float]], then: Sequence[Mapping[str, float]]
) -> float:
    """Largest relative difference of one number of two trainings, step by step."""
    pairs = [(one[name], other[name]) for one, other in zip(now, then, strict=True)]
    return max(abs(a - b) / max(abs(b), 1e-30) for a, b in pairs)


def mean_difference(model: Path, other: Path) -> float:
    """Mean absolute difference of the weights of two models, of the file that differs most."""
    return max(
        _mean_difference(load_file(path), load_file(other / path.relative_to(model)))
        for path in model.rglob("*.safetensors")
    )


def _mean_difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    parts = [np.abs(tensor - other[name]).ravel() for name, tensor in one.items()]
    return float(np.concatenate(parts).mean())


def generated(run: Path) -> dict[str, Any]:
    """What the sealed records tell of every shard of the corpus, and what is in it.

    `content` is a digest of all members, without the versions of the software in `generator`.
    """
    lines = (run / "generate/manifest.jsonl").read_text().splitlines()
    return {"shards": [_shard(run, json.loads(line)) for line in lines]}


def _shard(run: Path, record: Mapping[str, Any]) -> dict[str, Any]:
    path = run / record["path"]
    assert hashlib.sha256(path.read_bytes()).hexdigest() == record["sha256"], path
    metas, levels, digest = [], [], hashlib.sha256()
    with tarfile.open(path) as tar:
        for entry in tar:
            opened = tar.extractfile(entry)
            assert opened is not None
            data = opened.read()
            if entry.name.endswith(".meta.json"):
                metas.append(json.loads(data))
                data = json.dumps({**metas[-1], "generator": ""}, sort_keys=True).encode()
            if entry.name.endswith(".png"):
                pixels = np.asarray(Image.open(io.BytesIO(data)))
                levels.append(round(float(pixels.mean()), 3))
                data = pixels.tobytes()
            digest.update(f"{entry.name} {len(data)}\n".encode() + data)
    names = ("schema", "shard", "samples", "bytes", "sha256", "rejected", "detail")
    recorded = ("key", "prompt", "seed", "model_sha", "config_fingerprint")
    return {
        **{name: record[name] for name in names},
        "content": digest.hexdigest(),
        "generator": metas[0]["generator"],
        "meta": [{name: meta[name] for name in recorded} for meta in metas],
        "mean_levels": levels,
    }


def arithmetic() -> dict[str, str]:
    """What the bits of floating point depend on, besides the program."""
    packages = ("torch", "deepspeed", "diffusers", "transformers", "numpy")
    return {"cpu": _cpu(), **{name: version(name) for name in packages}}


def _cpu() -> str:
    """Model and instruction sets of the processor."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor()
    facts = dict(line.split("\t", 1) for line in text.splitlines() if "\t" in line)
    model = [facts.get(name, "").strip(": \t") for name in ("vendor_id", "cpu family", "model")]
    wide = sorted(f for f in facts.get("flags", "").split() if f.startswith(("avx", "amx", "fma")))
    return " ".join([*model, *wide])


def digest_of_tensors(path: Path) -> str:
    """SHA-256 over names, types, shapes and bytes of the tensors of a safetensors file, by name."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    head = json.loads(data[8 : 8 + length])
    head.pop("__metadata__", None)
    digest = hashlib.sha256()
    for name, tensor in sorted(head.items()):
        begin, end = tensor["data_offsets"]
        digest.update(f"{name} {tensor['dtype']} {tensor['shape']}\n".encode())
        digest.update(data[8 + length + begin : 8 + length + end])
    return digest.hexdigest()
