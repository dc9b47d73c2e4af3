"""Resolvers in configurations and profiles: `${oc.env:NAME}` of an allow-list of variables.

A configuration may come from anybody, and its values end in captions, cards and scripts. So it
reads no variable that could hold a secret, and a file of another user reads none at all.
References to other keys (`${tile.tile_px}`) tell nothing that is not in the file, and work
everywhere. A frozen configuration is read as it stands.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from hpc.errors import ConfigError
from hpc.permissions import other_writers
from hpc.shell import quoted

Origin = Literal["own", "frozen"] | str
"""`own` resolves what is allowed, `frozen` nothing; any other text says why nothing is resolved."""

VARIABLES = frozenset(
    {
        "HOME",
        "USER",
        "LOGNAME",
        "HOSTNAME",
        "TMPDIR",
        "XDG_CACHE_HOME",
        "HF_HOME",
        "HF_HUB_CACHE",
        "CUDA_VISIBLE_DEVICES",
        "OMP_NUM_THREADS",
        "SLURM_CLUSTER_NAME",
        "SLURM_CPUS_ON_NODE",
        "SLURM_CPUS_PER_TASK",
        "SLURM_JOB_ACCOUNT",
        "SLURM_JOB_ID",
        "SLURM_JOB_NAME",
        "SLURM_JOB_NUM_NODES",
        "SLURM_JOB_PARTITION",
        "SLURM_NNODES",
        "SLURM_NTASKS",
        "SLURM_SUBMIT_DIR",
        "SLURM_TMPDIR",
    }
)
"""Environment variables that may be read, besides those of `FOLDERS`."""

FOLDERS = re.compile(r"([A-Z0-9]+_)*([A-Z0-9]*SCRATCH|WORK|STORE|PROJECT)(_?DIR)?")
"""Names that clusters give to a user's folders and project: SCRATCH, CINECA_SCRATCH, WORKDIR."""

_RESOLVER = "InterpolationResolverContext"


def is_allowed(variable: str) -> bool:
    """Whether a configuration may read that environment variable."""
    return variable in VARIABLES or FOLDERS.fullmatch(variable) is not None


def origin_of(path: Path, status: os.stat_result) -> Origin:
    """`own` for a file that only the user (or root) can have written, else why it is not."""
    writers = other_writers(status, (os.getuid(), 0))
    if writers is None:
        return "own"
    remedy = (
        "copy it, read it, use the copy" if "belongs" in writers else f"`chmod go-w {quoted(path)}`"
    )
    return f"it {writers}: {remedy}"


def interpolations(values: Any, where: str, origin: Origin) -> dict[str, str]:
    """The values with a reference or a resolver in them, by their keys, once they are allowed.

    Args:
        values: plain dicts, lists and scalars, nothing resolved.
        where: the file, for messages.
        origin: who wrote it.

    Raises:
        ConfigError: a resolver or a variable that is not allowed, or variables that are not set.
        GrammarParseError: a value that OmegaConf cannot parse.
    """
    found = {key: text for key, text in _texts(values, "") if "${" in text}
    unset: dict[str, list[str]] = {}
    for key, text in found.items():
        for name, argument, has_default in _resolvers(text):
            _require_allowed(key, where, name, argument, origin)
            if not has_default and argument not in os.environ:
                unset.setdefault(argument, []).append(key)
    if unset and origin != "frozen":
        lines = [f"export {name}=VALUE for {', '.join(keys)}" for name, keys in unset.items()]
        raise ConfigError(
            f"{where} reads environment variables that are not set: {'; '.join(lines)}"
        )
    return {key: text for key, text in found.items() if re.search(r"(?<!\\)\$\{", text)}


def literal(values: Any) -> Any:
    """`values` such that OmegaConf takes every text for what it is."""
    if isinstance(values, Mapping):
        return {key: literal(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [literal(value) for value in values]
    if isinstance(values, str):
        return re.sub(r"(\\*)\$\{", lambda found: found[1] * 2 + r"\${", values)
    return values


def _require_allowed(key: str, where: str, name: str, argument: str, origin: Origin) -> None:
    expression = f"${{{name}:{argument}}}"
    if origin != "own":
        raise ConfigError(
            f"{key} in {where} is {expression}, which is not resolved, as {origin}; or write the "
            "value itself"
        )
    if name != "oc.env":
        raise ConfigError(
            f"{key} in {where} uses the resolver {name}; only `${{oc.env:NAME}}` is resolved; "
            "write the value itself"
        )
    if not is_allowed(argument):
        raise ConfigError(
            f"{key} in {where} is {expression}, a variable that configurations may not read: it "
            f"could hold a secret. Give the value on the command line ({key}=VALUE), or use one of "
            f"{', '.join(sorted(VARIABLES))} or a folder such as SCRATCH, WORK, STORE, PROJECT"
        )


def _texts(values: Any, prefix: str) -> Iterator[tuple[str, str]]:
    if isinstance(values, str):
        yield prefix, values
    elif isinstance(values, Mapping):
        for key, value in values.items():
            yield from _texts(value, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(values, list | tuple):  # YAML's !!pairs and !!omap make tuples
        for number, value in enumerate(values):
            yield from _texts(value, f"{prefix}[{number}]")


def _resolvers(text: str) -> Iterator[tuple[str, str, bool]]:
    """Name and first argument of every resolver that OmegaConf's own grammar finds in a value.

    The third is whether it has another argument, its default.
    """
    from omegaconf.grammar_parser import parse

    pending: list[Any] = [parse(text)]
    while pending:
        node = pending.pop()
        if type(node).__name__ == _RESOLVER:
            arguments = node.sequence()
            first = next(arguments.getChildren(), None) if arguments is not None else None
            argument = "" if first is None else first.getText()
            more = arguments is not None and arguments.getChildCount() > 1
            yield node.resolverName().getText(), argument.strip("\"'"), more
        pending += getattr(node, "children", None) or []
