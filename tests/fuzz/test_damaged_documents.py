"""Whatever a document holds, reading it ends in a value or in an error that names the document."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from case_counts import each
from document_mutations import as_json, damaged
from isolated_cases import problem_of

from hpc.job.manifest import Manifest, read_manifest
from hpc.publish import Digest
from hpc.store.attempts import begin_attempt, crash_loop, last_failure, read_attempts
from hpc.store.ledger import RECORD_SCHEMA, Failure, Ledger, Record
from hpc.store.plan import make_plan, read_plan
from hpc.store.rundir import RunDir
from hpc.store.submissions import (
    SUBMISSION_SCHEMA,
    SubmissionRecord,
    SubmittedJob,
    read_submissions,
)
from sarhpc.archive.config import ArchiveConfig
from sarhpc.archive.formats.readers import open_sar
from sarhpc.archive.stac_catalog import select_scenes, write_catalogue
from sarhpc.archive.stac_item import make_item
from sarhpc.captioning.config import CaptionSetConfig
from sarhpc.captioning.tuning.datasets import open_set
from sarhpc.generation.config import GenerateConfig
from sarhpc.generation.pixels import pixel_metadata
from sarhpc.generation.plan import plan_generation
from sarhpc.shards.contract import LawSpan, PixelContract, describe, read_contract

REPOSITORY = Path(__file__).resolve().parents[2]
SHORT, LONG = 25, 160


@dataclasses.dataclass(frozen=True)
class Reader:
    """A document as it should be, where it lies, and what reads it."""

    place: str
    document: Any
    read: Callable[[Path], object]
    """Of the folder in which the document lies."""
    lines: bool = False
    """One JSON object a line."""
    prepare: Callable[[Path], object] = lambda folder: None


def job_documents() -> dict[str, Reader]:
    record = Record(
        "000000", "p" * 16, "/d/0.tar", 7, 99, "a" * 64, 0, "n1", "2026-01-01T00:00:00Z",
        "2026-01-01T00:01:00Z", 60.0, {"empty": 2}, {"split": "train"},
    )  # fmt: skip
    row = {"schema": RECORD_SCHEMA, **dataclasses.asdict(record)}
    failure = Failure("000001", "p" * 16, 0, 1, "DataError", "no", "2026-01-01T00:00:00Z")
    plan = json.loads(make_plan("tile", [{"scene": "a", "n": [1, 2]}, {}])._text())
    job = SubmittedJob("tile", "7", 4, "afterany:6", "s.sbatch", "l/%j.log", 1, 0, time_min=60)
    submission = SubmissionRecord(
        0, "2026-01-01T00:00:00Z", "slurm", "a100", "tok", (job, job), shards={"tile": ("000000",)}
    )
    starts = [
        {"attempt": 0, "job": "7", "host": "n", "pid": 9, "from": 0, "started": "x", "restart": 0},
        {"attempt": 0, "to": 0, "exit": 1, "reason": "bad", "ended": "x"},
    ]
    manifest = Manifest(4, 2, 0, 1e9, {"seed": 1}, {"a.pt": Digest(3, "f" * 64)})

    def ledger(folder: Path) -> object:
        book = Ledger(folder)
        return book.records(), book.failures(), book.missing(make_plan("tile", [{}]))

    def attempts(folder: Path) -> None:
        rows = read_attempts(folder)
        last_failure(rows)
        crash_loop(folder)
        begin_attempt(folder, 0, force=True)

    return {
        "record": Reader("records/000/000000.json", row, ledger),
        "failure": Reader("failed/000001.json", dataclasses.asdict(failure), ledger),
        "manifest": Reader(
            "manifest.jsonl", [row, row], lambda f: (ledger(f), Ledger(f).totals()), lines=True
        ),
        "plan": Reader("plan.json", plan, lambda f: read_plan(f / "plan.json")),
        "submission": Reader(
            "submissions/000.json",
            json.loads(json.dumps({"schema": SUBMISSION_SCHEMA, **dataclasses.asdict(submission)})),
            lambda f: [s.elements("tile") for s in read_submissions(RunDir(f))],
        ),
        "attempts": Reader("attempts.jsonl", starts, attempts, lines=True),
        "checkpoint": Reader("MANIFEST.json", manifest.to_json(), read_manifest),
        "run": Reader("run.json", {"fingerprint": "f", "name": "r"}, lambda f: RunDir(f).info),
    }


def caption_documents() -> dict[str, Reader]:
    sentences = [{"raw": "a river", "tokens": ["a", "river"]}]
    karpathy = {"images": [{"filename": "a.jpg", "split": "train", "sentences": sentences}] * 2}
    nwpu = {"airport": [{"filename": "a.jpg", "split": "train", "raw": "x", "raw_1": "y"}]}
    rows = [{"filename": "a.jpg", "captions": ["a river", "a stream"]}] * 3

    def captions(kind: str, name: str) -> Callable[[Path], object]:
        def read(folder: Path) -> object:
            cfg = CaptionSetConfig(kind=kind, path=str(folder / name), images=str(folder))
            found = open_set(dataclasses.replace(cfg, skip_missing=True))
            return [image.distinct for image in found]

        return read

    def prompts(folder: Path) -> object:
        return plan_generation(GenerateConfig(prompts_file=str(folder / "p.jsonl")))

    def picture(folder: Path) -> None:
        (folder / "a.jpg").write_bytes(b"")

    return {
        "karpathy": Reader("k.json", karpathy, captions("karpathy", "k.json"), prepare=picture),
        "nwpu": Reader("n.json", nwpu, captions("nwpu", "n.json"), prepare=picture),
        "jsonl": Reader("c.jsonl", rows, captions("jsonl", "c.jsonl"), True, picture),
        "prompts": Reader("p.jsonl", [{"prompt": "a river"}, {"prompt": "sea"}], prompts, True),
    }


ITEM = make_item(
    "scene",
    bbox=(1.0, 50.0, 2.0, 51.0),
    geometry={"type": "Polygon", "coordinates": [[[1, 50], [2, 50], [2, 51], [1, 51], [1, 50]]]},
    datetime="2019-08-04T10:00:00Z",
    properties={
        "platform": "p", "sar:frequency_band": "X", "sar:polarizations": ["HH"],
        "sar:instrument_mode": "SM", "sar:looks_range": 1, "sar:looks_azimuth": 2,
        "sar:looks_equivalent_number": 1.5, "view:incidence_angle": 40.0,
        "sar:observation_direction": "right", "sarhpc:range_direction": "+col",
        "sarhpc:quantity": "amplitude", "sarhpc:calibration": "sigma0", "sarhpc:scale": 0.5,
        "sarhpc:spacing_m": [1.0, 1.0], "sarhpc:geometry": "ground", "sarhpc:band_index": 1,
        "sarhpc:flight_line": "f", "eo:cloud_cover": 5.0,
    },
    assets={"sar": Path("scene.tif")},
)  # fmt: skip


def write_scene(folder: Path) -> None:
    write_catalogue([ITEM], folder)
    with rasterio.open(
        folder / "scene.tif", "w", driver="GTiff", width=8, height=8, count=1, dtype="float32",
        crs="EPSG:32631", transform=Affine(1, 0, 6e5, 0, -1, 5.7e6),
    ) as file:  # fmt: skip
        file.write(np.ones((1, 8, 8), np.float32))


def read_scenes(folder: Path) -> None:
    selections = (
        {}, {"band": "X", "polarization": "HH"}, {"bbox": [0.0, 0.0, 9.0, 90.0]},
        {"datetime": "2019-08-04"}, {"ids": ["scene"]},
    )  # fmt: skip
    for selection in selections:
        for scene in select_scenes(ArchiveConfig(uri=str(folder), **selection)):
            reader = open_sar(scene, True)
            reader.read((0, 4), (0, 4))
            reader.close()


STAC_ITEM = {**ITEM, "assets": {"sar": {"href": "../scene.tif", "roles": ["data"]}}}
STAC_ROOT = {
    "type": "Catalog", "stac_version": "1.1.0", "id": "c", "description": "d",
    "links": [{"rel": "item", "href": "./scene/scene.json"}, {"rel": "root", "href": "x"}],
}  # fmt: skip

CONTRACT = PixelContract(
    LawSpan("db", (9.0, 9.0), (0.01, 0.01)), "sigma0", (0.35, 0.5), "ground", "+col", ("left",),
    ("X",), ("HH", "VV"), (30.0, 50.0), "A SAR image of", "{token} {caption}", ("CC0",), "ab", 2, 9,
).to_json()  # fmt: skip


def read_pixels(folder: Path) -> object:
    """Everything that is asked of a contract."""
    contract = read_contract(folder)
    assert contract is not None
    inputs = {"contract": contract.to_json()}
    assert PixelContract.from_json(contract.to_json()) == contract
    return describe(contract), contract.law, pixel_metadata(inputs, GenerateConfig())


READERS = {
    **job_documents(),
    **caption_documents(),
    "item": Reader("scene/scene.json", STAC_ITEM, read_scenes, prepare=write_scene),
    "contract": Reader("contract.json", CONTRACT, read_pixels),
    "catalogue": Reader("catalog.json", STAC_ROOT, read_scenes, prepare=write_scene),
}


def check(reader: Reader, random: Random) -> None:
    document = damaged(reader.document, random)
    if reader.lines:
        rows = document if isinstance(document, list) else [document]
        text = b"\n".join(as_json(row, random) for row in rows)
    else:
        text = as_json(document, random)
    check_text(reader, text)


def check_text(reader: Reader, text: bytes) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        reader.prepare(folder)
        path = folder / reader.place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text)
        # A catalogue may refer to a file outside.
        names = [str(folder), str(folder.parent), "cannot read /", "scene scene"]
        problem = problem_of(lambda: reader.read(folder), names)
    assert problem is None, (problem, text[:2000])


@pytest.mark.parametrize("name", READERS)
def test_a_damaged_document_is_refused_by_name(name: str) -> None:
    each(SHORT, lambda random: check(READERS[name], random))


@pytest.mark.long
@pytest.mark.parametrize("name", READERS)
def test_many_damaged_documents(name: str) -> None:
    each(LONG, lambda random: check(READERS[name], random))
