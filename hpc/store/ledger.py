"""The ledger of a stage: the records that prove its shards (P1, P6, P7).

Layout: `records/<first three digits>/<shard>.json`, at most a thousand names a directory,
`failed/<shard>.json` for the last failure of a shard, and after sealing one `manifest.jsonl`
into which the records were compacted.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpc.documents import built, parse_json, read_json
from hpc.errors import IncompleteError, VerificationError
from hpc.publish import publish_json, publish_text, remove_stale_temporaries
from hpc.regular_files import read_regular, read_regular_text
from hpc.store.lease import Lease
from hpc.store.plan import Plan, ShardTask
from hpc.store.run_paths import located_path, stored_path

RECORD_SCHEMA = "sarhpc.shard/1"
STALE_FILE_AGE_S = 3600.0


@dataclass(frozen=True)
class Record:
    """Proof of one finished shard: its file, digest, counts, attempt and rejected samples."""

    shard: str
    plan: str
    path: str
    """Absolute; on disk relative to the run directory if it is inside (`hpc.store.run_paths`)."""
    samples: int
    bytes: int
    sha256: str
    attempt: int
    host: str
    started: str
    """RFC 3339 UTC, as `finished`."""
    finished: str
    seconds: float = 0.0
    rejected: Mapping[str, int] = field(default_factory=dict)
    """Rejected samples, counted by reason."""
    detail: Mapping[str, str] = field(default_factory=dict)
    """Values for the next stage or the report, for example the split."""


@dataclass(frozen=True)
class Failure:
    """The last failure of a shard."""

    shard: str
    plan: str
    attempt: int
    tries: int
    error: str
    message: str
    when: str


class Ledger:
    """Records of one stage directory; all state is on disk."""

    def __init__(self, directory: Path, lease: Lease | None = None) -> None:
        """The ledger in `directory`; whoever publishes there under a `lease` must still hold it.

        With one, `publish`, `fail` and `seal` raise LeaseLostError once it is lost.
        """
        self.directory = directory
        self.root = directory.parent
        """The run directory."""
        self._guard = None if lease is None else lease.require_held
        self.manifest = directory / "manifest.jsonl"

    def _record_path(self, shard: str) -> Path:
        return self.directory / "records" / shard[:3] / f"{shard}.json"

    def _failure_path(self, shard: str) -> Path:
        return self.directory / "failed" / f"{shard}.json"

    @property
    def sealed(self) -> bool:
        """Whether all records were compacted into the manifest."""
        return self.manifest.exists()

    def publish(self, record: Record) -> None:
        """Make `record` visible; its artefact must already be published."""
        publish_json(self._record_path(record.shard), _document(record, self.root), self._guard)
        self._failure_path(record.shard).unlink(missing_ok=True)

    def fail(self, failure: Failure) -> None:
        """Record a failure; the shard stays missing and the next attempt retries it."""
        try:
            before = _read_failure(self._failure_path(failure.shard))
        except VerificationError:  # damaged: the failure of now replaces it
            before = None
        tries = failure.tries + (before.tries if before else 0)
        document = dataclasses.asdict(dataclasses.replace(failure, tries=tries))
        publish_json(self._failure_path(failure.shard), document, self._guard)

    def records(self) -> dict[str, Record]:
        """Every record by shard id, in order."""
        found: list[Record] = []
        if not self.sealed:
            try:
                paths = sorted((self.directory / "records").glob("*/[0-9]*.json"))
                found = [
                    _parse_record(read_regular_text(path, "surrogateescape"), path, self.root)
                    for path in paths
                ]
            except FileNotFoundError:
                # Sealing has removed the records meanwhile; the manifest has them.
                if not self.sealed:
                    raise
        if self.sealed:
            lines = read_regular_text(self.manifest, "surrogateescape").splitlines()
            found = [_parse_record(line, self.manifest, self.root) for line in lines]
        return {record.shard: record for record in found}

    def totals(self) -> tuple[int, int, int]:
        """Shards, samples and rejected samples of a sealed stage; fast on 10,000 shards."""
        try:
            rows = [parse_json(line) for line in read_regular(self.manifest).splitlines()]
            rejected = sum(sum(row["rejected"].values()) for row in rows)
            return len(rows), sum(row["samples"] for row in rows), rejected
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise VerificationError(f"{self.manifest} is not a manifest: {error!r}") from error

    def failures(self) -> dict[str, Failure]:
        """The last failure of each shard that has no record yet."""
        paths = sorted((self.directory / "failed").glob("[0-9]*.json"))
        recorded = self.recorded_ids() if paths else set()
        read = (_read_failure(path) for path in paths if path.stem not in recorded)
        return {failure.shard: failure for failure in read if failure is not None}

    def recorded_ids(self) -> set[str]:
        """Ids with a record; reads names only, so that status stays fast on 10,000 shards."""
        found = {path.stem for path in (self.directory / "records").glob("*/[0-9]*.json")}
        return set(self.records()) if self.sealed else found

    def missing(self, plan: Plan) -> list[ShardTask]:
        """Shards of `plan` without a record, in plan order."""
        recorded = self.recorded_ids()
        return [shard for shard in plan.shards if shard.id not in recorded]

    def seal(self, plan: Plan) -> Path:
        """Compact all records into `manifest.jsonl` and return its path; idempotent.

        Raises:
            IncompleteError: shards are missing.
            VerificationError: a record belongs to another plan.
        """
        if self.sealed:
            self._clear()
            return self.manifest
        missing = self.missing(plan)
        if missing:
            raise IncompleteError(
                f"stage {plan.stage}: {len(missing)} of {len(plan.shards)} shards have no record "
                f"(first {missing[0].id}); resume the run to make them"
            )
        records = self.records()
        for record in records.values():
            if record.plan != plan.id:
                raise VerificationError(
                    f"{self._record_path(record.shard)} belongs to plan {record.plan}, and the "
                    f"plan here is {plan.id}; move the stale record away or start a new run"
                )
        text = _manifest_text((records[shard.id] for shard in plan.shards), self.root)
        publish_text(self.manifest, text, self._guard)
        # The manifest now holds every record: a crash before the next line loses nothing.
        self._clear()
        return self.manifest

    def _clear(self) -> None:
        """Remove the records that the manifest replaces, and temporaries of killed writers."""
        shutil.rmtree(self.directory / "records", ignore_errors=True)
        for folder in (self.directory, self.directory / "failed"):
            remove_stale_temporaries(folder, STALE_FILE_AGE_S)


def _read_failure(path: Path) -> Failure | None:
    """The failure recorded at `path`; None if there is none (any more)."""
    try:
        return built(Failure, read_json(path))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise VerificationError(f"{path} does not describe a failure: {error}") from error


def _document(record: Record, root: Path) -> dict[str, Any]:
    path = stored_path(root, record.path)
    return {"schema": RECORD_SCHEMA, **dataclasses.asdict(record), "path": path}


def _manifest_text(records: Iterable[Record], root: Path) -> str:
    documents = (_document(record, root) for record in records)
    return "".join(json.dumps(d, sort_keys=True, separators=(",", ":")) + "\n" for d in documents)


def _parse_record(text: str, path: Path, root: Path) -> Record:
    try:
        document = parse_json(text)
        if document.pop("schema") != RECORD_SCHEMA:
            raise VerificationError(f"{path} is not a record of schema {RECORD_SCHEMA}")
        record = built(Record, document)
        return dataclasses.replace(record, path=str(located_path(root, record.path)))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise VerificationError(f"{path} is not a record: {error!r}") from error
