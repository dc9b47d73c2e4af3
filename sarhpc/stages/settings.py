"""Whether the stages of a run can be carried out as configured, asked before any begins."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path

from hpc.errors import ConfigError
from hpc.store.rundir import RunDir
from sarhpc.extras import CHAIN, require_extra
from sarhpc.stages.config import RunConfig
from sarhpc.stages.inputs.paths import archive_uri, model_folder
from sarhpc.stages.number_ranges import out_of_range
from sarhpc.stages.registry import spec_named, specs_of


def require_settings(
    config: RunConfig, stages: Iterable[str], ranks: Callable[[str], int] | None = None
) -> None:
    """Raise ConfigError unless each of `stages` accepts its settings.

    What depends on data or models is not checked here: the stage does that when it begins.

    Args:
        config: of the run.
        stages: names of the stages that are to begin.
        ranks: number of processes of a collective stage, by its name; None does not check whether
            batches divide among them.

    Raises:
        ConfigError: names for each stage that does not the setting and what to give instead.
    """
    reasons = out_of_range(config, ["cluster"])
    counted = None if reasons else ranks
    for spec in map(spec_named, stages):
        wrong = out_of_range(config, spec.branches)
        reasons += wrong
        try:
            spec.check(config)
            if counted is not None and spec.check_ranks is not None and not wrong:
                spec.check_ranks(config, counted(spec.name))
        except ConfigError as error:
            reasons += [str(error)] if not _is_named(str(error), wrong) else []
    if reasons:
        raise ConfigError("\n".join(dict.fromkeys(reasons)))


def _is_named(reason: str, wrong: Iterable[str]) -> bool:
    """Whether the setting that `reason` begins with is in one of the lines `wrong`."""
    key = re.split(r"[=\s]", reason, maxsplit=1)[0]
    return any(line.partition("=")[0] == key for line in wrong)


def require_inputs(run: RunDir, config: RunConfig, stages: Iterable[str] | None = None) -> None:
    """Raise ConfigError unless there is one archive, and every model that `stages` start from.

    Checked before anything is submitted, so that no job fails for it hours later.

    Args:
        run: the run.
        config: of the run.
        stages: names of the stages that are to begin; None for all of the run.
    """
    if config.imported is None:
        archive_uri(run, config)
    elif config.simulate is not None or config.archive.uri:
        raise ConfigError(
            f"imported.path={config.imported.path} replaces an archive: leave out simulate and "
            "archive.uri, or imported"
        )
    specs = specs_of(config) if stages is None else [spec_named(name) for name in stages]
    for spec in specs:
        for name in spec.models(config):
            model_folder(name)


def require_installed(config: RunConfig, stages: Iterable[str]) -> None:
    """Raise MissingExtraError unless the packages that the work of `stages` needs are installed."""
    needed = {name: spec_named(name).needs_extra(config) for name in stages}
    if needed:
        name = max(needed, key=lambda stage: CHAIN.index(needed[stage]))
        require_extra(needed[name], f"stage {name}")


def require_present(run: RunDir, config: RunConfig, stages: Iterable[str]) -> None:
    """Raise ConfigError unless what `stages` are to read from elsewhere is there and of use.

    Raises:
        ConfigError: names each archive, folder and model that is not, and what to do.
    """
    reasons: list[str] = []
    models: dict[str, None] = {}
    for spec in map(spec_named, stages):
        models |= dict.fromkeys(spec.models(config))
        try:
            spec.check_inputs(run, config)
        except ConfigError as error:
            reasons.append(str(error))
    for name in models:
        reasons += _missing_model(name)
    if reasons:
        raise ConfigError("\n".join(dict.fromkeys(reasons)))


def _missing_model(name: str) -> list[str]:
    try:
        path = Path(model_folder(name))
    except ConfigError as error:
        return [str(error)]
    if path.exists() or _in_cache_of_the_hub(name):
        return []
    return [
        f"model {name} is neither a folder nor in the cache of the hub ($HF_HOME); give a folder, "
        "or one that `sarhpc fetch` lists"
    ]


def _in_cache_of_the_hub(name: str) -> bool:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = [try_to_load_from_cache(name, file) for file in ("config.json", "model_index.json")]
    except HFValidationError:
        return False
    return any(isinstance(path, str) for path in found)
