"""What a run knows of its corpus, for index, card and metadata."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hpc.documents import parse_json
from hpc.errors import ConfigError
from hpc.publish import publish_json
from hpc.store.ledger import Record
from hpc.store.plan import read_plan
from hpc.store.rundir import RunDir
from sarhpc.stages.config import RunConfig
from sarhpc.stages.inputs.base_models import FETCHED
from sarhpc.stages.inputs.contracts import contract_of_corpus
from sarhpc.stages.inputs.gate_limits import GATE_SHA, planned_gate
from sarhpc.stages.inputs.paths import data_root, model_folder
from sarhpc.stages.inputs.prompt_text import prompt_template
from sarhpc.stages.inputs.prompts import held_out_splits, known_prompts
from sarhpc.stages.work.sharded import sealed_records

if TYPE_CHECKING:
    from sarhpc.corpus.facts import Gate, ImageGateFacts, Licence, Score
    from sarhpc.corpus.packaging import Corpus
    from sarhpc.shards.contract import PixelContract

GATE_FILE = "gate.json"
"""Limits and counts of the gate, in the folder of the corpus."""
SETTINGS = ("steps", "guidance", "scheduler", "batch", "threads")
"""Settings of `generate` that the card lists."""


def package_run(
    run: RunDir,
    config: RunConfig,
    records: Sequence[Record],
    fingerprint: str,
    scores: Sequence[Score] = (),
    gates: Sequence[Gate] = (),
) -> Corpus:
    """Publish index, card and Croissant metadata of the corpus that `records` prove.

    Args:
        run: the run that generated it.
        config: its configuration.
        records: of its shards, in shard order.
        fingerprint: of the configuration, which the images carry.
        scores: its distances to real tiles, once there are any.
        gates: what it was held to as a whole, likewise.

    Raises:
        VerificationError: a shard holds what another run made.
        DataError: a shard is damaged.
    """
    from sarhpc.corpus.facts import CorpusFacts, ShardFile
    from sarhpc.corpus.packaging import package_corpus

    rejected: dict[str, int] = {}
    for record in records:
        for reason, count in record.rejected.items():
            rejected[reason] = rejected.get(reason, 0) + count
    [export] = sealed_records(run, "export")
    contract = contract_of_corpus(run)
    facts = CorpusFacts(
        name=f"Synthetic SAR corpus of model {export.sha256[:12]}",
        model_sha=export.sha256,
        config_fingerprint=fingerprint,
        settings={name: getattr(config.generate, name) for name in SETTINGS},
        rejected=rejected,
        classes=_prompt_classes(run, config),
        licences=_licences(config, contract),
        scores=scores,
        gates=gates,
        contract=contract,
        image_gate=image_gate_facts(run, records),
    )
    shards = [ShardFile(Path(r.path), r.bytes, r.sha256) for r in records]
    root = data_root(run, config) / "synthetic"
    if facts.image_gate is not None:
        publish_json(root / GATE_FILE, facts.image_gate.to_json())
    return package_corpus(root, shards, facts)


def image_gate_facts(run: RunDir, records: Sequence[Record]) -> ImageGateFacts | None:
    """What came of the gate of single images in shards with these records; None without a gate."""
    from sarhpc.corpus.facts import ImageGateFacts
    from sarhpc.generation.gate import CLASS_JUDGED
    from sarhpc.generation.sweeps.settings import LAYOUT_IMAGES

    plan = run.plan_file("generate")
    tasks = read_plan(plan).shards if plan.exists() else ()
    digest = tasks[0].inputs.get(GATE_SHA) if tasks else None
    if digest is None:
        return None
    gate, detail = planned_gate(run, digest), Counter[str]()
    for record in records:
        detail.update({name: int(n) for name, n in record.detail.items() if n.isdigit()})
    each = tasks[0].inputs.get(LAYOUT_IMAGES)
    accepted = sum(record.samples for record in records) // (each or 1)
    prefix = "quarantined "
    reasons = {name[len(prefix) :]: n for name, n in detail.items() if name.startswith(prefix)}
    classes = None
    if gate.classes is not None:
        classes = {**gate.classes.summary(), "judged": detail[CLASS_JUDGED]}
    return ImageGateFacts(
        accepted + detail["unmet"],
        accepted,
        detail["draws"],
        reasons,
        gate.limits.rate,
        gate.limits.tiles,
        gate.splits,
        gate.limits.duplicate_bits,
        gate.limits.to_json(),
        classes,
        "images" if each is None else "layouts",
    )


def gate_notes(run: RunDir) -> list[str]:
    """The gate as a sentence for the report of a run, of the shards so far; none without a gate."""
    from sarhpc.corpus.card_gate import gate_line

    facts = gate_so_far(run)
    return [] if facts is None else [f"{gate_line(facts)}."]


def gate_so_far(run: RunDir) -> ImageGateFacts | None:
    """What came of the gate in the shards that have records; None without a gate or shards."""
    facts = image_gate_facts(run, list(run.ledger("generate").records().values()))
    return facts if facts is not None and facts.draws else None


def _prompt_classes(run: RunDir, config: RunConfig) -> dict[str, str]:
    """Class of each prompt that is the caption of a held-out tile whose class is known."""
    from sarhpc.generation.plan import full_prompt

    if config.generate is None:
        return {}
    cfg = dataclasses.replace(config.generate, prompt_template=prompt_template(config))
    if cfg.table is not None or cfg.prompts or cfg.prompts_file:
        return {}
    if not run.ledger("caption").sealed:
        return {}
    splits = held_out_splits(run, config.evaluate.real_splits)
    return {
        full_prompt(cfg, known.caption): known.land_cover
        for known in known_prompts(run, splits)
        if known.land_cover is not None
    }


def _licences(config: RunConfig, contract: PixelContract | None) -> list[Licence]:
    """The licence of the base model, if it was fetched with one, and those of the training data."""
    from sarhpc.corpus.facts import Licence

    scenes = () if contract is None else contract.licence or ()
    found = [Licence("training data", name) for name in scenes]
    try:
        document = parse_json((Path(model_folder(config.train.base_model)) / FETCHED).read_bytes())
        name, licence, url = (document[k] for k in ("name", "licence", "licence_url"))
    except (OSError, ValueError, KeyError, TypeError, ConfigError):
        return found
    return [Licence(f"base model {name}", str(licence), str(url)), *found]
