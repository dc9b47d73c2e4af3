"""An ablation: runs by what differs in their configuration, with what their evaluations found.

Runs are ranked against one another only where their evaluations compare: the same real tiles, in
the same pixels, by measures of the same version, at the same numbers of tiles.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from sarhpc.evaluation.ablation_measures import JUDGED, Cell, Found, Measure, measures_of

ABLATION_SCHEMA = "sarhpc.ablation/1"
IGNORED = ("data", "evaluate.gallery", "evaluate.gates_fail")
"""Settings that change no result."""


@dataclass(frozen=True)
class EvaluatedRun:
    """A run as an ablation reads it."""

    name: str
    path: str
    config: Mapping[str, Any]
    """As nested plain values."""
    evaluation: Mapping[str, Any] | None
    """Its `evaluation.json`; None where there is none."""
    missing: str
    """Why there is none, and what to do; empty where there is one."""
    cost: Mapping[str, Any]
    """`unit`, hours in `total` and in each of `stages`, `images`."""
    captions: Mapping[str, Mapping[str, float]]
    """Scores of its captioner `before` and `after` fine-tuning; empty without one."""


@dataclass(frozen=True)
class AblationRow:
    """A run."""

    name: str
    path: str
    settings: Mapping[str, Any]
    """Value of each setting that differs; absent where it does not have it."""
    group: int | None
    """Runs of one number compare; None without an evaluation."""
    cells: Mapping[str, Cell]
    tiles: int | None
    gates: Mapping[str, str]
    """Verdict of each gate."""
    cost: Mapping[str, Any]
    captions: Mapping[str, Mapping[str, float]]
    missing: str


@dataclass(frozen=True)
class Ablation:
    """The whole table."""

    settings: tuple[str, ...]
    """Keys that differ, in the order of the configuration."""
    measures: tuple[Measure, ...]
    rows: tuple[AblationRow, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"schema": ABLATION_SCHEMA, **asdict(self)}


def tabulate(runs: Sequence[EvaluatedRun]) -> Ablation:
    """The ablation of these runs, in their order."""
    settings, values = differing([run.config for run in runs])
    bases = [_basis(run) for run in runs]
    numbers: dict[str, int] = {}
    groups = [
        None if basis is None else numbers.setdefault(_key(basis), len(numbers) + 1)
        for basis in bases
    ]
    known = [{found.measure.name: found for found in measures_of(run.evaluation)} for run in runs]
    measures: dict[str, Measure] = {}
    for found in known:
        measures |= {name: one.measure for name, one in found.items() if name not in measures}
    ranked = {name: _ranked([of.get(name) for of in known], groups) for name in measures}
    cells = [
        {name: cells[n] for name, cells in ranked.items() if n in cells} for n in range(len(runs))
    ]
    rows = tuple(
        AblationRow(
            run.name, run.path, values[n], groups[n], cells[n], _tiles(run.evaluation),
            {gate["name"]: gate["verdict"] for gate in (run.evaluation or {}).get("gates", [])},
            run.cost, run.captions, run.missing,
        )
        for n, run in enumerate(runs)
    )  # fmt: skip
    return Ablation(settings, tuple(measures.values()), rows, tuple(_notes(runs, bases, groups)))


def differing(
    configs: Sequence[Mapping[str, Any]],
) -> tuple[tuple[str, ...], list[dict[str, Any]]]:
    """Keys whose values differ between configurations, and the values of each one.

    A branch that only some have is one key, `set` where it is there, beside those of its keys that
    differ among these; where none does, its value is the branch itself.
    """
    flat = [dict(_leaves(config)) for config in configs]
    keys = list(dict.fromkeys(key for one in flat for key in one))
    branches = {key for key in keys if any(_is_below(other, key) for other in keys)}
    found = [key for key in keys if key not in branches and _differs(flat, key)]
    for branch in branches:
        below = [key for key in keys if _is_below(key, branch)]
        if not any(key in found for key in below):
            found.append(branch)
            for one in flat:
                inner = {key.removeprefix(f"{branch}."): one[key] for key in below if key in one}
                if inner:
                    one[branch] = ", ".join(f"{k}={_text(v)}" for k, v in inner.items())
        else:
            found.append(branch)
            for one in flat:
                if any(key in one for key in below):
                    one[branch] = "set"
    order = [key for key in keys if key in found and not key.startswith(IGNORED)]
    return tuple(order), [{key: one[key] for key in order if key in one} for one in flat]


def _leaves(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, item in value.items():
        key = f"{prefix}{name}"
        if isinstance(item, Mapping) and item:
            yield from _leaves(item, f"{key}.")
        else:
            yield key, item


def _is_below(key: str, branch: str) -> bool:
    return key.startswith(f"{branch}.")


def _differs(flat: Sequence[Mapping[str, Any]], key: str) -> bool:
    """Whether the runs that have a key differ in it."""
    return len({json.dumps(one[key], default=str) for one in flat if key in one}) > 1


def _text(value: Any) -> str:
    return "null" if value is None else str(value)


def _basis(run: EvaluatedRun) -> dict[str, Any] | None:
    """What an evaluation compared the corpus with, by name."""
    evaluation = run.evaluation
    if evaluation is None:
        return None
    real = {k: v for k, v in evaluation["sets"]["real"].items() if k != "measures"}
    # Measures of the real tiles, to the last digit, tell whether they are the same tiles.
    digest = hashlib.sha256(json.dumps(real, sort_keys=True).encode()).hexdigest()
    ours = evaluation["sets"][JUDGED]
    verdicts = [one for one in ours["measures"].values() if "tiles" in one]
    sizes = sorted({(one["tiles"], one["reference_tiles"]) for one in verdicts})
    schema, version = evaluation.get("schema"), evaluation.get("version")
    return {
        "real tiles": digest[:12],
        "version of the evaluation": [schema, version],
        "pixels": [evaluation.get("pixels"), evaluation.get("px")],
        "numbers of tiles": sizes or ours["tiles"],
        "seed of the draws": run.config.get("evaluate", {}).get("seed"),
    }


def _key(basis: Mapping[str, Any]) -> str:
    return json.dumps(basis, sort_keys=True, default=str)


def _tiles(evaluation: Mapping[str, Any] | None) -> int | None:
    ours = (evaluation or {}).get("sets", {}).get(JUDGED)
    return None if ours is None else int(ours["tiles"])


def _ranked(found: Sequence[Found | None], groups: Sequence[int | None]) -> dict[int, Cell]:
    """The cells of a measure by number of the run, ranked within each group."""
    cells = {n: one.cell for n, one in enumerate(found) if one is not None}
    alike: dict[tuple[int, str], dict[int, float]] = {}
    for n, one in enumerate(found):
        group = groups[n]
        if one is not None and group is not None and one.cell.raw is not None:
            sign = -1.0 if one.measure.more_is_better else 1.0
            alike.setdefault((group, one.basis), {})[n] = sign * one.cell.raw
    for values in alike.values():
        if len(values) > 1:
            best = cells[min(values, key=lambda n: values[n])]
            for n, value in values.items():
                rank = 1 + sum(other < value for other in values.values())
                meets = rank > 1 and _meet(cells[n], best)
                cells[n] = replace(cells[n], rank=rank, like_best=meets)
    return cells


def _meet(one: Cell, other: Cell) -> bool:
    """Whether the intervals of two cells overlap; not where one has none."""
    if one.low is None or one.high is None or other.low is None or other.high is None:
        return False
    return one.low <= other.high and other.low <= one.high


def _notes(
    runs: Sequence[EvaluatedRun],
    bases: Sequence[Mapping[str, Any] | None],
    groups: Sequence[int | None],
) -> Iterator[str]:
    for run in runs:
        if run.missing:
            yield f"{run.name}: {run.missing}"
    first: dict[int, int] = {}
    for n, group in enumerate(groups):
        if group is not None:
            first.setdefault(group, n)
    for group, n in first.items():
        basis, base = bases[n], bases[next(iter(first.values()))]
        if group > 1 and basis is not None and base is not None:
            names = ", ".join(run.name for run, g in zip(runs, groups, strict=True) if g == group)
            other = [name for name in basis if basis[name] != base[name]]
            yield (
                f"{names}: not ranked against {runs[next(iter(first.values()))].name}, as these "
                f"differ: {', '.join(other)}. Evaluate against the same real tiles with one "
                "version to rank them."
            )
