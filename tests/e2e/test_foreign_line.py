"""The line on images others cut: the layout of SARLO-80, real SpaceNet 6 pixels."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
import webdataset
from line_runs import make_tiny_model, start_stage

from hpc.config import fingerprint, loads, to_yaml
from hpc.job.pipeline import run_stage
from hpc.store.rundir import create_run
from sarhpc.shards.images import encode_array, encode_gray8
from sarhpc.stages.config import RunConfig
from sarhpc.stages.registry import line_of_stages
from sarhpc.stages.run_config import load_run_config

CONFIG = """
imported: {path: FOLDER, px: 32, group: site, fractions: [1.0, 0.0, 0.0], polarization: HH}
caption: {captioner: given, template: {token: A SAR image of}}
train:
  global_batch: 4
  micro_batch: 2
  max_steps: 3
  warmup_steps: 1
  precision: fp32
  ema_decay: 0.5
  validation_every_steps: 0
generate: null
cluster: {workers: 1, ranks: 1}
"""

pytestmark = pytest.mark.slow


def write_foreign(source: Path, out: Path, px: int = 40, step: int = 16) -> None:
    """Cuts of a real scene in a shard as webdataset writes it, with the members of SARLO-80."""
    with rasterio.open(source) as file:
        field = file.read(1).astype(np.complex64)
    top = np.percentile(np.abs(field), 99.5)
    cuts = [
        field[row : row + px, col : col + px]
        for row in range(0, field.shape[0] - px, step)
        for col in range(0, field.shape[1] - px, step)
    ]
    with webdataset.TarWriter(str(out)) as writer:
        for number, cut in enumerate(cut for cut in cuts if (cut != 0).all()):
            codes = np.round(255 * np.minimum(np.abs(cut) / top, 1)).astype(np.uint8)
            meta = {"site": "Rotterdam", "caption": {"SHORT": "a harbour", "LONG": "a harbour"}}
            writer.write({
                "__key__": f"{number:06d}",
                "sar.png": encode_gray8(codes),
                "sar.npy": encode_array(cut),
                "meta.json": json.dumps(meta).encode(),
            })  # fmt: skip


def test_foreign_shards_are_trained_on_as_they_are(test_data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir()
    write_foreign(test_data / "spacenet6_solaris" / "sar_hh.tif", folder / "shard-000000.tar")
    model = make_tiny_model(tmp_path)
    words = [f"train.base_model={model}"]
    config = loads(RunConfig, CONFIG.replace("FOLDER", str(folder)), words)
    run = create_run(tmp_path / "run", to_yaml(config), fingerprint(config), words)
    for stage in line_of_stages(load_run_config(run)):
        if stage.collective:
            # DeepSpeed keeps the process groups it saw first: it gets a process of its own.
            assert start_stage(run, stage.name).wait() == 0
        else:
            run_stage(run, stage)
    made = {name: run.ledger(name).totals()[1] for name in ("tile", "caption")}
    assert made["tile"] == made["caption"] > 20
    rows = (run.stage("train") / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(row)["step"] for row in rows if "loss" in row] == [1, 2, 3]
    assert (run.stage("export") / "model" / "model_index.json").is_file()
