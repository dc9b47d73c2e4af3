"""Sealing a ledger: the manifest is there before a record goes, whoever looks or dies meanwhile."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from hpc.errors import IncompleteError, VerificationError
from hpc.store import ledger as ledger_module
from hpc.store.ledger import Failure, Ledger, Record
from hpc.store.plan import Plan, make_plan

PLAN = make_plan("tile", [{"n": n} for n in range(3)])


def record(shard: str, plan: Plan = PLAN, **facts: object) -> Record:
    known = Record(shard, plan.id, f"/d/{shard}.tar", 5, 90, "ab", 0, "n1", "t0", "t1", 2.5,
                   {"nodata": 2, "dark": 1}, {"split": "val"})  # fmt: skip
    return replace(known, **facts)  # type: ignore[arg-type]


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    ledger = Ledger(tmp_path / "tile")
    for shard in ("000002", "000000", "000001"):
        ledger.publish(record(shard))
    return ledger


def lone_records(ledger: Ledger) -> list[str]:
    return sorted(path.name for path in (ledger.directory / "records").glob("*/*.json"))


def test_records_stay_until_the_manifest_has_its_name(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []
    replace_file = os.replace

    def watched(source: Path, target: Path) -> None:
        if Path(target) == ledger.manifest:
            seen.append(lone_records(ledger))
        replace_file(source, target)
        if Path(target) == ledger.manifest:
            seen.append(lone_records(ledger))

    monkeypatch.setattr(os, "replace", watched)
    before = ledger.records()
    assert ledger.seal(PLAN) == ledger.manifest
    names = ["000000.json", "000001.json", "000002.json"]
    assert seen == [names, names], "none is gone just before and just after the rename"
    assert lone_records(ledger) == []
    assert ledger.records() == before


@pytest.mark.parametrize(("at_rename", "sealed"), [("before", False), ("after", True)])
def test_a_seal_that_dies_at_its_manifest_loses_no_record(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, at_rename: str, sealed: bool
) -> None:
    replace_file = os.replace

    def dying(source: Path, target: Path) -> None:
        if at_rename == "after":
            replace_file(source, target)
        raise KeyboardInterrupt

    before = ledger.records()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "replace", dying)
        ledger.seal(PLAN)
    assert ledger.sealed is sealed
    assert ledger.records() == before
    assert ledger.missing(PLAN) == []
    ledger.seal(PLAN)
    assert lone_records(ledger) == []
    assert ledger.records() == before


def test_a_reader_whom_a_seal_overtakes_finds_every_record(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = ledger.records()
    read = ledger_module.read_regular_text

    def overtaken(path: Path, errors: str) -> str:
        if not ledger.sealed:
            ledger_of_another.seal(PLAN)
        return read(path, errors)

    ledger_of_another = Ledger(ledger.directory)
    # The other one reads its records with the plain method.
    monkeypatch.setattr(ledger_of_another, "records", lambda: expected)
    monkeypatch.setattr(ledger_module, "read_regular_text", overtaken)
    assert ledger.records() == expected
    assert ledger.sealed


def test_a_record_that_vanishes_without_a_manifest_is_no_ledger_without_it(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(path: Path, errors: str) -> str:
        raise FileNotFoundError(path)

    monkeypatch.setattr(ledger_module, "read_regular_text", gone)
    with pytest.raises(FileNotFoundError):
        ledger.records()


def test_the_manifest_holds_what_the_records_held_in_the_order_of_the_plan(ledger: Ledger) -> None:
    before = ledger.records()
    assert list(before) == ["000000", "000001", "000002"]
    assert before["000001"] == record("000001")
    lines = ledger.seal(PLAN).read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["shard"] for row in rows] == list(before)
    assert lines == [json.dumps(r, sort_keys=True, separators=(",", ":")) for r in rows]
    assert ledger.records() == before
    assert ledger.recorded_ids() == set(before)
    assert ledger.totals() == (3, 15, 9)


def test_a_gap_is_counted_and_nothing_is_sealed(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.publish(record("000001"))
    assert [task.id for task in ledger.missing(PLAN)] == ["000000", "000002"]
    with pytest.raises(IncompleteError, match=r"2 of 3 shards have no record \(first 000000\)"):
        ledger.seal(PLAN)
    assert not ledger.sealed
    assert lone_records(ledger) == ["000001.json"]


def test_a_record_of_another_plan_is_not_sealed(ledger: Ledger) -> None:
    other = make_plan("tile", [{"n": n} for n in range(1, 4)])
    ledger.publish(record("000001", other))
    with pytest.raises(VerificationError, match=rf"000001\.json belongs to plan {other.id}"):
        ledger.seal(PLAN)
    assert not ledger.sealed
    assert len(lone_records(ledger)) == 3


def test_records_lie_a_thousand_to_a_directory(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    for shard in ("000999", "001000", "123456"):
        ledger.publish(record(shard))
    found = {str(p.relative_to(tmp_path / "records")) for p in tmp_path.rglob("*.json")}
    assert found == {"000/000999.json", "001/001000.json", "123/123456.json"}


def failure(shard: str, tries: int, attempt: int = 0) -> Failure:
    return Failure(shard, PLAN.id, attempt, tries, "DataError", "torn", "t")


def test_tries_add_up_over_failures_and_end_with_the_record(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.fail(failure("000000", 2))
    ledger.fail(failure("000000", 3, attempt=1))
    ledger.fail(failure("000001", 1))
    assert {shard: found.tries for shard, found in ledger.failures().items()} == {
        "000000": 5,
        "000001": 1,
    }
    assert ledger.failures()["000000"].attempt == 1
    ledger.publish(record("000000"))
    assert list(ledger.failures()) == ["000001"]
    assert [path.name for path in (tmp_path / "failed").iterdir()] == ["000001.json"]


@pytest.mark.parametrize("damaged", ["{", "[]", '{"shard": 3}'])
def test_a_failure_that_cannot_be_read_is_replaced_by_that_of_now(
    tmp_path: Path, damaged: str
) -> None:
    ledger = Ledger(tmp_path)
    ledger.fail(failure("000000", 2))
    path = tmp_path / "failed" / "000000.json"
    path.write_text(damaged)
    with pytest.raises(VerificationError, match=r"000000\.json does not describe a failure"):
        ledger.failures()
    ledger.fail(failure("000000", 1))
    assert ledger.failures()["000000"].tries == 1


def test_a_failure_beside_a_record_no_longer_counts(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.publish(record("000000"))
    ledger.fail(failure("000000", 1))
    assert ledger.failures() == {}


@pytest.mark.parametrize("text", ["{", '{"schema": "other/1"}', '{"schema": "sarhpc.shard/1"}'])
def test_what_is_no_record_names_its_file(ledger: Ledger, text: str) -> None:
    (ledger.directory / "records" / "000" / "000001.json").write_text(text)
    with pytest.raises(VerificationError, match=r"000001\.json is not a record"):
        ledger.records()


def test_what_is_no_manifest_is_said_to_be_none(ledger: Ledger) -> None:
    ledger.manifest.write_text('{"samples": 3}\n')
    with pytest.raises(VerificationError, match="is not a manifest"):
        ledger.totals()


def test_a_sealed_ledger_is_swept_of_what_writers_left_an_hour_ago(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger.seal(PLAN)
    (ledger.directory / "failed").mkdir()
    monkeypatch.setattr("hpc.publish.file_system_time", lambda _: 10_000.0)
    ages = {"failed/.a.host.1.0.tmp": 3600, ".b.host.1.0.tmp": 3600, ".c.host.1.0.tmp": 3599.5}
    for name, age in ages.items():
        (ledger.directory / name).write_text("half")
        os.utime(ledger.directory / name, (10_000 - age, 10_000 - age))
    assert ledger.seal(PLAN) == ledger.manifest
    left = {path.name for path in ledger.directory.rglob(".*.tmp")}
    assert left == {".c.host.1.0.tmp"}, "its writer may live"


def test_what_is_not_told_of_a_shard_is_nothing() -> None:
    bare = Record("000000", "p", "/d", 1, 2, "ab", 0, "n1", "t0", "t1")
    assert (bare.seconds, bare.rejected, bare.detail) == (0.0, {}, {})
