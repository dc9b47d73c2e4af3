"""What a run knows of its corpus, for index, card and metadata."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hpc.documents import parse_json
from hpc.errors import ConfigError
from hpc.store.ledger import Record
from hpc.store.rundir import RunDir
from sarhpc.stages.config import RunConfig
from sarhpc.stages.inputs.base_models import FETCHED
from sarhpc.stages.inputs.contracts import contract_of_corpus
from sarhpc.stages.inputs.paths import data_root, model_folder
from sarhpc.stages.inputs.prompt_text import prompt_template
from sarhpc.stages.inputs.prompts import held_out_splits, known_prompts
from sarhpc.stages.work.sharded import sealed_records

if TYPE_CHECKING:
    from sarhpc.corpus.facts import Gate, Licence, Score
    from sarhpc.corpus.packaging import Corpus
    from sarhpc.shards.contract import PixelContract

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
    )
    shards = [ShardFile(Path(r.path), r.bytes, r.sha256) for r in records]
    return package_corpus(data_root(run, config) / "synthetic", shards, facts)


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
