"""The stage of docs/guide/extending.md, run as it is printed there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from guide_examples import code_blocks, module_from
from line_runs import TINY

from hpc.config import loads
from hpc.job.elements import run_element
from hpc.store.rundir import RunDir, open_run
from sarhpc.cli import configuration, main, running
from sarhpc.shards.images import decode_gray8
from sarhpc.stages import config as config_module
from sarhpc.stages import registry, run_config
from sarhpc.stages.config import RunConfig


@pytest.fixture
def extended(monkeypatch: pytest.MonkeyPatch) -> None:
    """The program after the edits that the page describes."""
    settings, branch, stage_file, _ = code_blocks("A stage")
    head = "from __future__ import annotations\nfrom dataclasses import dataclass, field\n"
    base = "from sarhpc.stages.config import RunConfig as Base\n"
    code = f"{head}{base}{settings}\n@dataclass\nclass RunConfig(Base):\n{branch}"
    edited = module_from(monkeypatch, "edited_config", code)
    monkeypatch.setattr(config_module, "PreviewConfig", edited.PreviewConfig, raising=False)
    for module in (config_module, configuration, run_config):
        monkeypatch.setattr(module, "RunConfig", edited.RunConfig)
    preview = module_from(monkeypatch, "sarhpc.stages.preview", stage_file)
    stages = list(registry.STAGES)
    stages.insert(2, preview.PREVIEW)
    for module in (registry, running):
        monkeypatch.setattr(module, "STAGES", tuple(stages))


def bring_forward(run: RunDir, name: str) -> None:
    """The stage as an array of one element, in this process."""
    stage = registry.stage_named(run_config.load_run_config(run), name)
    run_element(run, stage, 0, lambda plan: [shard.id for shard in plan.shards])


@pytest.mark.slow
@pytest.mark.usefixtures("extended")
def test_the_stage_of_the_guide_has_a_verb_an_estimate_and_a_place_in_the_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "tiny.yaml"
    file.write_text(TINY)
    root = tmp_path / "run"
    assert main(["init", str(root), "--config", str(file), "preview={}"]) == 0
    run = open_run(root)
    for name in ("simulate", "tile"):
        bring_forward(run, name)
    capsys.readouterr()
    assert main(["preview", str(root), "--dry-run"]) == 0
    shown = capsys.readouterr().out
    count = sum(record.samples > 0 for record in run.ledger("tile").records().values())
    assert f"preview: {count} shards, {count} to make" in shown
    assert f"GB in {2 * count + 20} inodes" in shown
    bring_forward(run, "preview")
    records = run.ledger("preview").records()
    assert run.ledger("preview").sealed
    assert all(
        decode_gray8(Path(record.path).read_bytes()).shape == (32, 32 * record.samples)
        for record in records.values()
    )
    assert main(["status", str(root), "--json"]) == 0
    states = {s["name"]: s["state"] for s in json.loads(capsys.readouterr().out)["stages"]}
    assert list(states)[:4] == ["simulate", "tile", "preview", "caption"]
    assert states["preview"] == "COMPLETE"
    assert main(["verify", str(root), "--deep"]) == 0


@pytest.mark.usefixtures("extended")
def test_its_settings_are_checked_and_old_runs_keep_their_fingerprints(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = loads(RunConfig, TINY)
    new = loads(config_module.RunConfig, TINY)
    known = {spec.name: spec.fingerprint(old) for spec in registry.STAGES}
    assert known == {spec.name: spec.fingerprint(new) for spec in registry.STAGES}
    file = tmp_path / "tiny.yaml"
    file.write_text(TINY)
    words = ["--config", str(file), "preview.every=0", "--executor", "local"]
    assert main(["run", str(tmp_path / "run"), *words]) == 2
    assert "preview.every=0: give at least 1" in capsys.readouterr().err
