"""Whether the stages of a run can be carried out as configured, asked before any begins."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from hpc.config import to_dict
from hpc.errors import ConfigError
from hpc.store.rundir import RunDir
from sarhpc.extras import CHAIN, require_extra
from sarhpc.stages.config import RunConfig
from sarhpc.stages.inputs.paths import archive_uri, model_folder
from sarhpc.stages.number_ranges import out_of_range
from sarhpc.stages.registry import spec_named, specs_of
from sarhpc.stages.spec import StageSpec


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
        refused = list(_refusals(spec, config))
        reasons += [text for text in refused if not _is_named(text, wrong)]
        if counted is not None and spec.check_ranks is not None and not (wrong or refused):
            try:
                spec.check_ranks(config, counted(spec.name))
            except ConfigError as error:
                reasons.append(str(error))
    if reasons:
        raise ConfigError("\n".join(dict.fromkeys(reasons)))


def wrong_values(config: RunConfig) -> list[str]:
    """A line for each setting whose own stage refuses it whatever the others are.

    What may still be added to a draft (an archive, prompts, files) is not missed here.
    """
    reasons = out_of_range(config, [field.name for field in dataclasses.fields(config)])
    wrong = list(reasons)
    for spec in specs_of(config):
        for text in _refusals(spec, config):
            owner, name = _setting(config, _key(text))
            own = _key(text).partition(".")[0] in spec.branches
            value = getattr(owner, name, None)
            if own and value is not None and not dataclasses.is_dataclass(value):
                reasons += [text] if not _is_named(text, wrong) else []
    return list(dict.fromkeys(reasons))


def require_right_values(config: RunConfig, before: RunConfig | None = None) -> None:
    """Raise ConfigError if a value is wrong that is not so in the configuration `before`.

    Raises:
        ConfigError: names each setting and what to give instead.
    """
    known = [] if before is None else wrong_values(before)
    reasons = [line for line in wrong_values(config) if line not in known]
    if reasons:
        raise ConfigError("\n".join(reasons))


def _refusals(spec: StageSpec, config: RunConfig) -> Iterator[str]:
    """What the check of a stage says, of one setting after the other.

    A check ends at the first setting that it refuses. That one gets its default, and the others are
    checked again.
    """
    rest = copy.deepcopy(config)
    again = True
    while again:
        again = False
        try:
            spec.check(rest)
        except ConfigError as error:
            for text in str(error).splitlines():
                again |= _set_to_default(rest, _key(text))
                yield text


def _set_to_default(config: RunConfig, key: str) -> bool:
    """Whether the setting had another value than its default, which it has now.

    A branch stays: without it the stage would not be.
    """
    if "." not in key:
        return False
    owner, name = _setting(config, key)
    field = getattr(type(owner), "__dataclass_fields__", {}).get(name)
    if field is None:
        return False
    made = field.default_factory
    default = field.default if made is dataclasses.MISSING else made()
    if default is dataclasses.MISSING or getattr(owner, name) == default:
        return False
    setattr(owner, name, default)
    return True


def _setting(config: RunConfig, key: str) -> tuple[Any, str]:
    """The part of the configuration that has the setting, and its name there."""
    *parts, name = key.split(".")
    owner: Any = config
    for part in parts:
        owner = getattr(owner, part, None)
    return owner, name


def _key(reason: str) -> str:
    """The setting that a line begins with."""
    return re.split(r"[=:\s]", reason, maxsplit=1)[0]


def _is_named(reason: str, wrong: Iterable[str]) -> bool:
    """Whether the setting that `reason` is about is in one of the lines `wrong`."""
    about = _key(reason)
    for key in (_key(line) for line in wrong):
        within = key.startswith(f"{about}.") and key.rpartition(".")[2] in reason
        if key == about or within:
            return True
    return False


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
    names = [spec.name for spec in specs_of(config)] if stages is None else stages
    for name in _models(config, names):
        model_folder(name)


def require_installed(config: RunConfig, stages: Iterable[str]) -> None:
    """Raise MissingExtraError unless the packages that the work of `stages` needs are installed."""
    needed = dict(_extras(config, stages))
    if needed:
        name = max(needed, key=lambda stage: CHAIN.index(needed[stage]))
        require_extra(needed[name], f"stage {name}")


def _extras(config: RunConfig, stages: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Stage -> its extra, without stages whose settings are wrong: those are named elsewhere."""
    for name in stages:
        with contextlib.suppress(ConfigError):
            yield name, spec_named(name).needs_extra(config)


def require_present(run: RunDir, config: RunConfig, stages: Iterable[str]) -> None:
    """Raise ConfigError unless what `stages` are to read from elsewhere is there and of use.

    Raises:
        ConfigError: names each archive, folder and model that is not, and what to do.
    """
    reasons: list[str] = []
    names = list(stages)
    for spec in map(spec_named, names):
        try:
            spec.check_inputs(run, config)
        except ConfigError as error:
            reasons.append(str(error))
    for name in _models(config, names):
        reasons += _missing_model(name, _key_of(config, names, name))
    if reasons:
        raise ConfigError("\n".join(dict.fromkeys(reasons)))


def _models(config: RunConfig, stages: Iterable[str]) -> list[str]:
    """The models of `stages`, without those of stages whose settings are wrong."""
    found: dict[str, None] = {}
    for name in stages:
        with contextlib.suppress(ConfigError):
            found |= dict.fromkeys(spec_named(name).models(config))
    return list(found)


def _key_of(config: RunConfig, stages: Iterable[str], name: str) -> str:
    """The key under which stages name a model, and a colon; empty where there is none such."""
    values = to_dict(config)
    for branch in dict.fromkeys(one for stage in stages for one in spec_named(stage).branches):
        for key, value in _leaves(branch, values.get(branch)):
            if value == name:
                return f"{key}: "
    return ""


def _leaves(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the values below a key, each under its own."""
    if not isinstance(value, Mapping):
        yield key, value
        return
    for name, below in value.items():
        yield from _leaves(f"{key}.{name}", below)


def _missing_model(name: str, key: str) -> list[str]:
    try:
        path = Path(model_folder(name))
    except ConfigError as error:
        return [f"{key}{error}"]
    if path.exists() or _in_cache_of_the_hub(name):
        return []
    return [
        f"{key}model {name} is neither a folder nor in the cache of the hub ($HF_HOME); give a "
        "folder, or one that `sarhpc fetch` lists"
    ]


def _in_cache_of_the_hub(name: str) -> bool:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = [try_to_load_from_cache(name, file) for file in ("config.json", "model_index.json")]
    except HFValidationError:
        return False
    return any(isinstance(path, str) for path in found)
