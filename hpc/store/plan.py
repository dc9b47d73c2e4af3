"""A plan: the immutable list of shards of a stage, identified by its digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from hpc.documents import read_json
from hpc.errors import FingerprintMismatchError, VerificationError
from hpc.publish import publish_text
from hpc.regular_files import MOST_BYTES, open_regular
from hpc.store.lease import Lease

PLAN_SCHEMA = "sarhpc.plan/1"


@dataclass(frozen=True)
class ShardTask:
    """One unit of work and of retry: a six-digit shard id and the JSON inputs that determine it."""

    id: str
    inputs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def number(self) -> int:
        """The shard id as a number."""
        return int(self.id)


@dataclass(frozen=True)
class Plan:
    """All shards of one stage, the configuration it was planned under, and the rejected inputs."""

    stage: str
    shards: tuple[ShardTask, ...]
    fingerprint: str = ""
    """Fingerprint of the configuration the plan was made under."""
    rejected: Mapping[str, str] = field(default_factory=dict)
    """Rejected inputs, for example scenes, each with its reason."""

    @cached_property
    def id(self) -> str:
        """Sixteen hex digits of the SHA-256 of the plan's content."""
        return hashlib.sha256(self._text().encode()).hexdigest()[:16]

    def _text(self, between: str = "") -> str:
        """The plan as JSON, `between` around each shard; the id is that of the text without any."""
        head = {
            "schema": PLAN_SCHEMA,
            "fingerprint": self.fingerprint,
            "rejected": dict(self.rejected),
        }
        rows = [_compact([shard.id, dict(shard.inputs)]) for shard in self.shards]
        shards = between + f",{between}".join(rows) + between
        stage = json.dumps(self.stage)
        return f'{_compact(head)[:-1]},"shards":[{shards}],"stage":{stage}}}'


def _compact(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def make_plan(
    stage: str,
    inputs: Sequence[Mapping[str, Any]],
    *,
    fingerprint: str = "",
    rejected: Mapping[str, str] | None = None,
) -> Plan:
    """A plan whose shards are numbered in the order of `inputs`."""
    shards = tuple(ShardTask(f"{n:06d}", dict(values)) for n, values in enumerate(inputs))
    return Plan(stage, shards, fingerprint, dict(rejected or {}))


def publish_plan(plan: Plan, path: Path, lease: Lease | None = None) -> None:
    """Publish `plan` at `path`, or find the same plan there; a `lease` must still be held.

    Raises:
        LeaseLostError: it is not.
        FingerprintMismatchError: another plan is published at `path`; it is not replaced.
    """
    if path.exists():
        published = read_plan(path)
        if published.id != plan.id:
            raise FingerprintMismatchError(
                f"{path} holds plan {published.id} and now {plan.id} would be planned: "
                f"{'; '.join(_differences(published, plan))}; a plan never changes: start a new "
                "run directory, or restore the configuration or the inputs"
            )
        return
    # One shard per line: readable, and `planned_shards` need not parse it.
    guard = None if lease is None else lease.require_held
    publish_text(path, plan._text(between="\n") + "\n", guard)


def planned_shards(path: Path) -> int:
    """Number of shards of the plan at `path`, 0 without one; fast on a plan of 100 MB."""
    if not path.is_file():
        return 0
    with open_regular(path, most=MOST_BYTES) as file:
        return sum(line.startswith(b'["') for line in file)


def _differences(old: Plan, new: Plan) -> list[str]:
    """`what: old -> new` for the configuration, the number of shards, the first differing shard."""
    pairs = [
        ("configuration", old.fingerprint, new.fingerprint),
        ("shards", len(old.shards), len(new.shards)),
        ("rejected", dict(old.rejected), dict(new.rejected)),
    ]
    both = zip(old.shards, new.shards, strict=False)
    first = next(((a, b) for a, b in both if a != b), None)
    if first is not None:
        a, b = first
        pairs.append((f"shard {a.id}", a.inputs, b.inputs))
    return [f"{what}: {str(a)[:200]} -> {str(b)[:200]}" for what, a, b in pairs if a != b]


def read_plan(path: Path) -> Plan:
    """The plan published at `path`.

    Raises:
        VerificationError: the file is not a plan of this schema.
    """
    try:
        document = read_json(path)
        if document["schema"] != PLAN_SCHEMA:
            raise VerificationError(f"{path} has schema {document['schema']}, not {PLAN_SCHEMA}")
        shards = tuple(_shard(id, inputs) for id, inputs in document["shards"])
        stage, fingerprint = _text(document["stage"]), _text(document["fingerprint"])
        rejected = {_text(name): _text(why) for name, why in document["rejected"].items()}
        return Plan(stage, shards, fingerprint, rejected)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise VerificationError(f"{path} is not a plan: {error!r}") from error


def _shard(id: Any, inputs: Any) -> ShardTask:
    if not (isinstance(id, str) and id.isascii() and id.isdigit() and isinstance(inputs, dict)):
        raise TypeError(f"shard {id!r:.20} is not a number with inputs")
    return ShardTask(id, inputs)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.40} is no text")
    return value
