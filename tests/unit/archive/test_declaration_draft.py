"""What `sarhpc catalog` drafts for files that do not state enough, and how it reports it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from archive_files import write_tif

from hpc.errors import ConfigError
from sarhpc.archive.declaration import read_declarations
from sarhpc.cli import main

GREY = np.full((40, 40), 500, np.uint16)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two plain images without a grid, one complex image, one damaged file."""
    data = tmp_path / "data"
    (data / "two").mkdir(parents=True)
    for name in ("a.tif", "b [1].tif"):
        write_tif(data / name, GREY, crs=None, transform=None)
    write_tif(data / "two" / "c.tif", np.ones((30, 50), np.complex64))
    (data / "damaged.tif").touch()
    return data


def catalog(folder: Path, *words: str) -> int:
    return main(["catalog", str(folder), "--out", str(folder.parent / "out"), *words])


def fill_in(draft: Path) -> None:
    text = draft.read_text()
    for entry, value in (
        ("role", "sar"),
        ("range_direction", '"+col"'),
        ("spacing_m", "[0.5, 0.5]"),
    ):
        text = text.replace(f'{entry}: "???"', f"{entry}: {value}")
    draft.write_text(text)


def test_a_draft_filled_in_makes_the_same_command_work(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert catalog(folder) == 1
    draft = folder.parent / "out" / "sarhpc.yaml"
    assert f"fill in {draft}, and repeat the command" in capsys.readouterr().err
    fill_in(draft)
    assert catalog(folder) == 0
    shown = capsys.readouterr().out
    assert "3 scenes, 1 files left out" in shown
    assert not (folder / "sarhpc.yaml").exists()


def test_all_that_is_missing_of_a_file_is_told_at_once(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    catalog(folder)
    lines = capsys.readouterr().out.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("a.tif "))
    reported = "\n".join(lines[start : start + 3])
    assert "declare role" in reported
    assert "declare range_direction" in reported
    assert "declare spacing_m" in reported
    assert any("damaged.tif" in line and "the file is empty" in line for line in lines)


def test_what_several_files_lack_is_filled_in_once(folder: Path) -> None:
    catalog(folder)
    text = (folder.parent / "out" / "sarhpc.yaml").read_text()
    assert text.count("spacing_m") == 1
    assert '"b [[]1].tif": *same1' in text
    assert "# uint16, 40 x 40, no CRS" in text
    assert "damaged" not in text


def test_a_pattern_stands_for_files_that_are_all_it_matches(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for name in ("a", "b", "c"):
        write_tif(data / f"{name}.tif", np.ones((30, 50), np.complex64))
    catalog(data)
    text = (tmp_path / "out" / "sarhpc.yaml").read_text()
    assert '"*.tif":' in text
    assert "a.tif" not in text


def test_entries_that_are_left_open_are_all_named(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    catalog(folder)
    capsys.readouterr()
    assert catalog(folder) == 2
    reported = capsys.readouterr().err
    assert reported.count("is still ???") == 7
    assert (
        "out/sarhpc.yaml, two/c.tif: range_direction is still ???; replace it by +col" in reported
    )


def test_of_an_optical_image_the_role_is_enough(folder: Path) -> None:
    catalog(folder)
    draft = folder.parent / "out" / "sarhpc.yaml"
    draft.write_text(draft.read_text().replace('role: "???"', "role: optical"))
    (folder / "two" / "c.tif").unlink()
    draft.write_text(draft.read_text().partition('  "two/c.tif"')[0])
    assert read_declarations(draft.parent).of("a.tif").role == "optical"


def test_what_was_filled_in_is_never_overwritten(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    catalog(folder)
    draft = folder.parent / "out" / "sarhpc.yaml"
    fill_in(draft)
    filled = draft.read_text()
    write_tif(folder / "two" / "a.tif", np.ones((30, 50), np.complex64))
    assert catalog(folder) == 0
    second = draft.with_name("sarhpc-2.yaml")
    assert draft.read_text() == filled
    assert f"fill in {second}, and add its entries to {draft}" in capsys.readouterr().out
    assert '"two/a.tif"' in second.read_text()


def test_scenes_of_one_name_get_a_proposed_id(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    for name in ("one", "two"):
        (data / name).mkdir(parents=True)
        write_tif(data / name / "sar.tif", GREY)
    (data / "sarhpc.yaml").write_text('defaults: {range_direction: "+row"}')
    assert catalog(data) == 0
    assert catalog(data) == 0
    assert "2 scenes, 0 files left out" in capsys.readouterr().out
    items = sorted(path.stem for path in (tmp_path / "out").glob("*/*.json"))
    assert items == ["sar", "two-sar"]


def test_the_catalogue_reads_as_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "data"
    data.mkdir()
    write_tif(data / "long_name_of_sar.tif", GREY)
    write_tif(data / "vv.tif", GREY)
    (data / "sarhpc.yaml").write_text(
        'defaults: {range_direction: "+row"}\nfiles: {vv.tif: {calibrated: true}}'
    )
    assert catalog(data) == 0
    header, *rows = capsys.readouterr().out.splitlines()[:3]
    columns = [header.index(name) for name in ("file", "size", "pixel", "sigma0", "optical")]
    assert [row[columns[0] :].split()[0] for row in rows] == ["long_name_of_sar.tif", "vv.tif"]
    assert [row[columns[3] :].split()[0] for row in rows] == ["unknown", "yes"]
    assert [row[columns[1] :].startswith("40 x 40") for row in rows] == [True, True]


def test_every_fault_of_the_declarations_is_told(tmp_path: Path) -> None:
    declared = {
        "defaults": {"bnad": "X", "incidence_deg": "steep"},
        "files": {"a.tif": {"role": "radar"}, "b.tif": 3},
        "filse": {},
    }
    (tmp_path / "sarhpc.yaml").write_text(json.dumps(declared))
    with pytest.raises(ConfigError) as caught:
        read_declarations(tmp_path)
    reported = str(caught.value)
    for fault in ("'bnad'; did you mean band", "'steep'", "'radar'", "found 3", "'filse'"):
        assert fault in reported
    assert len(reported.splitlines()) == 5


def test_the_same_draft_is_written_once(folder: Path) -> None:
    write_tif(folder / "vv.tif", GREY)
    (folder / "sarhpc.yaml").write_text('files: {vv.tif: {range_direction: "+row"}}')
    assert catalog(folder) == 0
    draft = folder.parent / "out" / "sarhpc.yaml"
    draft.rename(draft.with_name("sarhpc-2.yaml"))
    draft.write_text("defaults: {band: X}")
    for _ in range(2):
        assert catalog(folder) == 0
    assert sorted(path.name for path in draft.parent.glob("*.yaml")) == [
        "sarhpc-2.yaml",
        "sarhpc.yaml",
    ]


def test_programs_read_what_was_found(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert catalog(folder, "--json") == 1
    found = json.loads(capsys.readouterr().out)
    left_out = {item["file"]: item for item in found["left_out"]}
    assert (found["catalogue"], found["scenes"]) == (None, [])
    assert left_out["a.tif"]["to_declare"] == ["role", "range_direction", "spacing_m"]
    assert len(left_out["a.tif"]["reasons"]) == 3
    assert left_out["damaged.tif"]["to_declare"] == []
    fill_in(Path(found["draft"]))
    assert catalog(folder, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [scene["scene"] for scene in found["scenes"]] == ["a", "b-1-", "c"]
