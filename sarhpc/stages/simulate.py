"""Stage `simulate`: the procedural archive, one scene a shard."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hpc.errors import ConfigError
from hpc.job.pipeline import Stage, Work
from hpc.publish import digest_file
from hpc.store.plan import Plan, ShardTask, make_plan
from hpc.store.rundir import RunDir
from sarhpc.archive.procedural.config import ProceduralConfig
from sarhpc.stages.config import RunConfig
from sarhpc.stages.inputs.paths import archive_uri, data_root
from sarhpc.stages.run_config import load_run_config
from sarhpc.stages.spec import StageSpec, in_branch
from sarhpc.stages.work.sharded import ShardResult, make_missing_shards, sealed_paths

SCENE_BYTES_PER_PX = 13.4
SCENE_FILES = 9


def simulate_stage(config: RunConfig, upstream: Sequence[str]) -> Stage:
    """The stage that writes the procedural archive and its catalogue."""
    return Stage(
        name="simulate",
        needs=SIMULATE.needs_in(upstream),
        plan=plan_scenes,
        work=lambda work: make_missing_shards(make_scene, work, workers=config.cluster.workers),
        finish=write_archive_catalogue,
    )


def procedural(config: RunConfig) -> ProceduralConfig:
    """The procedural archive of a run that has one."""
    assert config.simulate is not None
    return config.simulate


def plan_scenes(run: RunDir) -> Plan:
    """One shard per scene."""
    from sarhpc.archive.procedural.flight import scene_ids

    config = load_run_config(run)
    inputs = [{"scene": scene} for scene in scene_ids(procedural(config))]
    return make_plan("simulate", inputs, fingerprint=SIMULATE.fingerprint(config))


def make_scene(run: RunDir, task: ShardTask) -> ShardResult:
    """Write one scene with all its assets; the record points to its STAC item."""
    from sarhpc.archive.procedural.write import write_scene

    config = load_run_config(run)
    root = data_root(run, config) / "archive"
    item = write_scene(procedural(config), task.inputs["scene"], root)
    digest = digest_file(item)
    return ShardResult(item, samples=1, bytes=digest.bytes, sha256=digest.sha256)


def write_archive_catalogue(work: Work) -> None:
    """Publish the catalogue of all scenes."""
    from sarhpc.archive.stac_catalog import write_catalogue

    root = Path(archive_uri(work.run, load_run_config(work.run)))
    write_catalogue(
        sealed_paths(work),
        root,
        catalogue_id="procedural",
        description="Procedural airborne X-band archive (simulated; shows no real place)",
    )


def check_settings(config: RunConfig) -> None:
    """Raise ConfigError unless the scenes can be simulated as configured."""
    from sarhpc.archive.procedural.flight import check

    cfg = procedural(config)
    with in_branch("simulate"):
        check(cfg)
    if cfg.scenes < 1:
        raise ConfigError(f"simulate.scenes={cfg.scenes}: give at least 1")


SIMULATE: StageSpec = StageSpec(
    name="simulate",
    help="write the procedural archive, scene by scene",
    branches=("simulate",),
    build=simulate_stage,
    enabled=lambda config: config.simulate is not None,
    check=check_settings,
    sharded=True,
    shards=lambda config: procedural(config).scenes,
    shard_bytes=lambda config: SCENE_BYTES_PER_PX * procedural(config).size_px ** 2,
    shard_files=lambda _: SCENE_FILES,
)
