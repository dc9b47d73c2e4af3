"""`sarhpc inspect` as somebody who was handed shards uses it."""

from __future__ import annotations

import re
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from line_runs import tiny_run

from hpc.store.ledger import Record
from hpc.store.plan import make_plan, publish_plan
from hpc.store.rundir import RunDir, now
from sarhpc.cli import main
from sarhpc.evaluation.footprint_map import draw_sites
from sarhpc.evaluation.survey import Outline, ShardRef, shared_ground, survey_set
from sarhpc.shards.images import encode_array, encode_gray8, encode_rgb8
from sarhpc.shards.sample import SAMPLE_SCHEMA, Sample, encode_json, sample_key
from sarhpc.shards.stretch import displayed
from sarhpc.shards.writer import ShardSummary, write_shard

pytestmark = pytest.mark.slow

PX = 40


def square(west: float, south: float, side: float = 0.001) -> list[list[float]]:
    corners = ((0, 0), (side, 0), (side, side), (0, side), (0, 0))
    return [[west + x, south + y] for x, y in corners]


def real(shard: int, index: int, **facts: Any) -> Sample:
    key = sample_key(shard, index)
    tile = np.random.default_rng([shard, index]).rayleigh(60, (PX, PX)).clip(0, 255)
    meta = {
        "schema": SAMPLE_SCHEMA, "key": key, "synthetic": False, "scene_id": f"scene-{shard}",
        "split": "train", "datetime": f"2024-05-{index % 28 + 1:02d}T10:00:00Z",
        "optic_datetime": None, "optic_delta_days": None, "band": "X", "polarization": "HH",
        "platform": "falcon", "incidence_deg": 40.0 + index % 9, "look_side": "right",
        "range_direction": "+col", "window": [0, 0, PX, PX],
        "affine": [0.35, 0, 5e5, 0, -0.35, 4.8e6], "crs": "EPSG:32631",
        "footprint": square(1.3 + 0.002 * index, 43.1 + 0.002 * shard), "pixel_m": 0.35,
        "native_pixel_m": [0.2, 0.2], "enl": 1.0, "resampling": "fft", "valid_fraction": 1.0,
        "saturated_fraction": 0.01, "master_scale": 1e-3, "calibration": "sigma0",
        "normalisation": {"mode": "mu+3sigma", "mu": 0.2, "sigma": 0.1, "top": 0.5},
        "caption_template": {"token": "A SAR image of"}, **facts,
    }  # fmt: skip
    return Sample(key, {
        "sar.png": encode_gray8(tile.astype(np.uint8)),
        "sar16.npy": encode_array((tile * 4).astype(np.uint16)),
        "optic.png": encode_rgb8(np.full((PX, PX, 3), index % 256, np.uint8)),
        "txt": f"A SAR image of <b>field</b> {index}".encode(),
        "meta.json": encode_json(meta),
    })  # fmt: skip


def generated(shard: int, index: int) -> Sample:
    key = sample_key(shard, index)
    tile = np.random.default_rng(index).rayleigh(60, (PX, PX)).clip(0, 255)
    meta = {
        "schema": SAMPLE_SCHEMA, "key": key, "synthetic": True, "prompt": "a lake",
        "negative_prompt": "", "seed": index, "steps": 2, "guidance": 4.0, "scheduler": "ddim",
        "batch": 2, "threads": 1, "model_sha": "aa", "config_fingerprint": "bb",
        "generator": "sarhpc", "pixel_m": 0.35, "range_direction": "+col",
    }  # fmt: skip
    picture = encode_gray8(tile.astype(np.uint8))
    return Sample(key, {"sar.png": picture, "txt": b"a lake", "meta.json": encode_json(meta)})


def shelve(root: Path, shards: int, samples: int) -> list[ShardSummary]:
    return [
        write_shard(root / "train" / f"{n:06d}.tar", (real(n, i) for i in range(samples)))
        for n in range(shards)
    ]


def inspect(path: Path, out: Path, *words: str) -> str:
    assert main(["inspect", str(path), "--out", str(out), *words]) == 0
    return out.read_text()


def test_the_page_of_a_folder_shows_its_tiles_and_needs_nothing_else(tmp_path: Path) -> None:
    shelve(tmp_path / "set", 2, 5)
    page = inspect(tmp_path / "set", tmp_path / "page.html")
    assert "No anomalies" in page
    assert "A SAR image of &lt;b&gt;field&lt;/b&gt; 3" in page
    assert "<b>field</b>" not in page
    sources = re.findall(r'src="([^"]*)"', page)
    assert len(sources) == 20
    assert all(uri.startswith("data:image/png;base64,") for uri in sources)
    assert not re.findall(r'(?:href|url)\s*[=(]\s*"?https?://', page)
    assert page.count("<polygon") == 10
    assert "2024-05-01 to 2024-05-05" in page
    for title in ("backscatter of calibrated tiles", "looks in 9 x 9 windows", "incidence"):
        assert title in page


@pytest.mark.parametrize(
    ("law", "shown"),
    [
        ({"mode": "mu+3sigma", "mu": 0.2, "sigma": 0.1, "top": 0.5}, 128),
        ({"mode": "db", "low": 0.01, "top": 1.0}, 64),
        ({"mode": "log1p", "top": 1.0, "gain": 100.0}, 64),
        (None, 128),
    ],
)
def test_amplitude_is_shown_with_a_square_root_and_a_logarithm_as_it_is(law, shown) -> None:
    codes = np.full((4, 4), 64, np.uint8)
    meta = {} if law is None else {"normalisation": law}
    assert int(displayed(codes, meta)[0, 0]) == shown


def test_the_same_shards_are_the_same_page(tmp_path: Path) -> None:
    shelve(tmp_path / "set", 1, 40)
    pages = [inspect(tmp_path / "set", tmp_path / f"{n}.html", "--tiles", "8") for n in "ab"]
    assert pages[0] == pages[1]


def test_a_generated_corpus_says_so_and_has_no_map(tmp_path: Path) -> None:
    write_shard(tmp_path / "synthetic" / "000000.tar", (generated(0, i) for i in range(6)))
    page = inspect(tmp_path / "synthetic", tmp_path / "page.html")
    assert "These images were generated" in page
    assert "<polygon" not in page
    assert "with a place on the Earth" not in page
    assert "one caption on 6 of 6: “a lake”" in page


def record(run: RunDir, stage: str, paths: list[Path], claims: list[ShardSummary]) -> None:
    plan = make_plan(stage, [{"n": n} for n in range(len(paths))])
    publish_plan(plan, run.plan_file(stage))
    for task, path, claim in zip(plan.shards, paths, claims, strict=True):
        run.ledger(stage).publish(
            Record(task.id, plan.id, str(path), claim.samples, claim.bytes, claim.sha256, 0, "n1",
                   now(), now(), 1.5, {"saturated": 3}, {"split": "train"})
        )  # fmt: skip


def test_a_run_shows_reject_reasons_and_what_disagrees_with_its_records(tmp_path: Path) -> None:
    run = tiny_run(tmp_path / "run", tmp_path / "model")
    data = run.root / "data" / "samples"
    claims = shelve(data, 2, 4)
    paths = [data / "train" / f"{n:06d}.tar" for n in range(2)]
    record(run, "caption", paths, claims)
    write_shard(paths[1], [real(1, 0)])
    page = inspect(run.root, tmp_path / "page.html")
    assert "saturated 6" in page
    assert "is not finished" in page
    assert "000001.tar 1 instead of 4" in page
    # A folder of a run knows its records too; a shard without one is not believed.
    write_shard(data / "train" / "000009.tar", [real(9, 0)])
    folder = inspect(data, tmp_path / "folder.html")
    assert "1 shards without a record are ignored" in folder
    assert "saturated 6" in folder


def test_what_is_odd_is_told_and_the_rest_still_shown(tmp_path: Path) -> None:
    root = tmp_path / "set"
    shelve(root, 3, 4)
    (root / "train" / "000001.tar").write_bytes(
        (root / "train" / "000000.tar").read_bytes()[:-4000]
    )
    write_shard(root / "val" / "000002.tar", [
        real(2, 0), real(2, 1, split="val", footprint=square(1.3, 43.1)), real(2, 2, enl=None),
        Sample(sample_key(2, 3), {"sar.png": encode_gray8(np.zeros((PX, PX), np.uint8))}),
    ])  # fmt: skip
    page = inspect(root, tmp_path / "page.html")
    for remark in (
        "is cut short", "shard number used twice", "split differs from the folder",
        "tiles of different splits share ground", "`enl` is None", "sample without meta.json",
        "tile of one value",
    ):  # fmt: skip
        assert remark in page, remark
    assert "A SAR image of &lt;b&gt;field" in page


@pytest.mark.parametrize(
    ("make", "says", "code"),
    [
        (lambda _: None, "does not exist", 2),
        (lambda path: path.mkdir(), "holds no shards", 4),
        (
            lambda path: write_shard(path / "000000.tar", [Sample("00000000000", {"jpg": b"x"})]),
            "none of 1 samples has a member sar.png",
            4,
        ),
        (lambda path: path.write_bytes(b"x" * 2000), "no valid tar header", 4),
    ],
)
def test_nothing_to_look_at_is_an_error_that_helps(
    make: Any, says: str, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path / "set")
    assert main(["inspect", str(tmp_path / "set"), "--out", str(tmp_path / "page.html")]) == code
    assert says in capsys.readouterr().err
    assert not (tmp_path / "page.html").exists()


def test_memory_does_not_grow_with_the_number_of_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The bound on outlines, brought below the counts of this test.
    monkeypatch.setattr("sarhpc.evaluation.survey.PLACES_KEPT", 32)
    sample = real(0, 0)
    shards = []
    for n in range(20):
        samples = (Sample(sample_key(n, i), sample.members) for i in range(50))
        path = tmp_path / f"{n:06d}.tar"
        write_shard(path, samples)
        shards.append(ShardRef(path))

    def peak(count: int) -> int:
        tracemalloc.start()
        survey = survey_set("set", shards[:count], lambda _: None, pixels=16)
        assert survey.samples == count * 50
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return top

    peak(1)
    # To keep 750 more of them would take a megabyte.
    assert peak(20) < peak(5) + 300_000


def test_sites_are_panels_and_the_antimeridian_does_not_tear_one() -> None:
    here = [
        Outline(f"a{i}", "train", "s", _points(square(179.9995 + i * 0.0005, 10.0))) for i in (0, 1)
    ]
    there = Outline("b", "val", "t", _points(square(-60.0, -30.0)))
    wrapped = Outline("c", "train", "s", _points(square(-179.9995, 10.0)))
    sites, more = draw_sites([*here, there, wrapped])
    assert [len(site.outlines) for site in sites] == [3, 1]
    assert more == 0
    assert sites[1].title == "30.000° S, 60.000° W: 1 tiles"
    assert "100 m" in sites[0].svg


def _points(ring: list[list[float]]) -> tuple[tuple[float, float], ...]:
    return tuple((lon, lat) for lon, lat in ring)


def test_shared_ground_is_overlap_and_not_touch() -> None:
    one = Outline("one", "train", "s", _points(square(1.0, 43.0)))
    beside = Outline("beside", "val", "s", _points(square(1.001, 43.0)))
    turned = Outline(
        "turned", "val", "s", ((0.9985, 43.0005), (0.9995, 42.9995), (1.0005, 43.0005))
    )
    assert shared_ground([one, beside]) == []
    assert shared_ground([beside, one, turned]) == [("turned", "one")]
