"""Every verb in its group, with a summary and an example: what `sarhpc --help` prints.

Nothing here imports what carries a verb out, so the help takes no longer than Python itself. A test
holds the summaries against those of the parsers.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class VerbEntry:
    """One verb of the command line."""

    name: str
    part: str
    """`module:function` that adds its parser; several verbs may share one."""
    summary: str
    example: str
    """Its words, without the name of the program."""
    aliases: tuple[str, ...] = ()
    """Former names, which still work and are not listed."""


def _of(module: str, name: str, summary: str, example: str, *aliases: str) -> VerbEntry:
    return VerbEntry(name, f"sarhpc.cli.{module}", summary, example, aliases)


def _stage(name: str, summary: str, example: str = "") -> VerbEntry:
    return _of("running:add_stages", name, summary, example or f"{name} runs/first")


GROUPS: tuple[tuple[str, tuple[VerbEntry, ...]], ...] = (
    (
        "start and continue",
        (
            _of("demo:add_demo", "demo",
                "archive to corpus and report on this machine, in about ten minutes", "demo"),
            _of("configuration:add_init", "init",
                "create a run directory with a draft of its configuration",
                "init runs/first --template demo generate.images=64"),
            _of("running:add_run_and_resume", "run", "carry out every stage, in order",
                "run runs/first --template demo --wait"),
            _of("running:add_run_and_resume", "resume",
                "continue a run with its unsealed stages", "resume runs/first"),
            _of("stopping:add_stop_and_cancel", "stop",
                "save and stop; stays stopped until `resume`", "stop runs/first"),
            _of("stopping:add_stop_and_cancel", "cancel",
                "request a stop and cancel queued jobs", "cancel runs/first"),
            _of("supervise:add_supervise", "supervise",
                "submit again what is lost, until every stage is sealed",
                "supervise runs/first --once"),
        ),
    ),
    (
        "look at a run",
        (
            _of("status:add_status", "status",
                "state of a run, from disk, queue and accounting", "status runs/first --watch"),
            _of("logs:add_logs", "logs", "show the newest logs of a run",
                "logs runs/first --failed"),
            _of("report:add_report", "costs",
                "GPU-hours by stage and outcome, useful and lost", "costs runs/first", "report"),
            _of("ablation:add_ablation", "ablation",
                "table of runs: what differs, distances to real tiles, hours",
                "ablation runs/full runs/lora --out ablation"),
            _of("view:add_view", "view",
                "show status, report, grids and shards of a run in a browser", "view runs/first"),
            _of("inspection:add_inspect", "inspect",
                "HTML summary of shards: tiles, captions, distributions, footprints, anomalies",
                "inspect runs/first --out first.html"),
            _of("verification:add_verify", "verify",
                "check every published artefact against its record", "verify runs/first --deep"),
            _of("clean:add_clean", "clean",
                "list files that are no longer needed; --yes removes them", "clean runs/first"),
        ),
    ),
    (
        "data and models",
        (
            _of("catalog:add_catalog", "catalog",
                "build a STAC catalogue from a folder of SAR files",
                "catalog /data/sar --out /data/catalogue"),
            _of("fetch:add_fetch", "fetch",
                "download pinned models to the shared cache, for jobs without network",
                "fetch sd15 blip"),
            _of("grid:add_grid", "grid", "sample a grid of prompts and seeds",
                "grid embedded:sar --prompt 'A SAR image of a lake' --out grid.png"),
            _of("decoder:add_decoder", "decoder",
                "tune a model's decoder for speckle, with a report before and after",
                "decoder embedded:base --tiles runs/first/data/samples --out tuned"),
            _of("contract:add_contract", "contract",
                "show what a pixel of a model's images means",
                "contract runs/first/export/model"),
            _of("corpus:add_corpus", "package",
                "write index, card and metadata of a corpus again, with its scores",
                "package runs/first"),
            _of("corpus:add_corpus", "export-corpus", "write a corpus in another layout",
                "export-corpus runs/first out --layout imagefolder"),
        ),
    ),
    (
        "this machine and its cluster",
        (
            _of("doctor:add_doctor", "doctor", "check this machine and its cluster",
                "doctor --write-profile"),
            _of("nodes:add_nodes", "nodes", "list or edit the nodes excluded from jobs",
                "nodes --mark node17 --reason 'bad memory'"),
            _of("trusting:add_trust", "trust",
                "declare a run or profile safe that others can write; list what is declared",
                "trust slurm/profiles/a100.yaml"),
        ),
    ),
    (
        "one stage of a run",
        (
            _stage("simulate", "write the procedural archive, scene by scene"),
            _stage("tile", "cut the scenes of the archive into tile shards"),
            _stage("optical", "pair tiles with optical images from another source"),
            _stage("caption-train",
                   "fine-tune the captioner on optical tiles with reference captions"),
            _stage("caption", "caption the tiles and write training shards"),
            _stage("clip-train", "fine-tune CLIP on captioned radar tiles, for the evaluation"),
            _stage("encode", "precompute the latents of the training tiles"),
            _stage("prior", "generate regularisation images with the base model"),
            _stage("train", "fine-tune the diffusion model with DeepSpeed ZeRO",
                   "train runs/first --profile a100 --dry-run"),
            _stage("export", "write the trained model as a diffusers folder"),
            _stage("generate", "generate the synthetic corpus"),
            _stage("compare", "generate the same prompts with other models, for the report"),
            _stage("evaluate", "compare synthetic with real images and write the report",
                   "evaluate real synthetic --out evaluation"),
        ),
    ),
)  # fmt: skip
"""Groups in the order of `sarhpc --help`, and the verbs of each."""

OF_JOBS = dict.fromkeys(("attach-job", "enlist", "work"), "sarhpc.cli.job_script:add_verbs_of_jobs")
"""Verbs of the scripts in slurm/, which are not listed."""

ENTRIES = {entry.name: entry for _, entries in GROUPS for entry in entries}
PARTS = OF_JOBS | {
    name: entry.part for entry in ENTRIES.values() for name in (entry.name, *entry.aliases)
}
"""What adds the parser of each verb."""


def grouped_help() -> str:
    """The verbs by group, with an example for each group."""
    lines = []
    for title, entries in GROUPS:
        lines += [f"{title}:", *(f"  {each.name:<14} {each.summary}" for each in entries)]
        lines += [f"  {'':<14} > sarhpc {entries[0].example}", ""]
    return "\n".join(lines)
