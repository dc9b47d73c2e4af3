from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pystac
import pytest
from pystac.validation import validate_dict

from hpc.errors import ConfigError, DataError
from sarhpc.archive.config import ArchiveConfig
from sarhpc.archive.footprint import geojson_polygon
from sarhpc.archive.stac_catalog import (
    StacArchive,
    make_item,
    open_archive,
    select_scenes,
    write_catalogue,
    write_item,
)


def item(name: str, root: Path, **known: Any) -> dict[str, Any]:
    bbox = known.pop("bbox", (1.0, 2.0, 3.0, 4.0))
    datetime = known.pop("datetime", "2019-08-04T10:00:00Z")
    west, south, east, north = bbox or (0, 0, 0, 0)
    ring = [(west, south), (east, south), (east, north), (west, north)]
    return make_item(
        name,
        bbox=bbox,
        geometry=None if bbox is None else geojson_polygon(ring),
        datetime=datetime,
        properties={key.replace("__", ":"): value for key, value in known.items()},
        assets={"sar": root / name / "sar.tif", "optical": root / name / "a b%c.tif"},
    )


def ids(archive: Any, **query: Any) -> list[str]:
    return [scene.id for scene in archive.search(**query)]


@pytest.fixture
def archive(tmp_path: Path) -> StacArchive:
    xband = {"sar__frequency_band": "X", "sar__polarizations": ["HH"]}
    write_catalogue(
        [
            item("c", tmp_path, sar__frequency_band="C", datetime="2020-01-01T00:00:00Z"),
            item("a", tmp_path, **xband),
            item("b", tmp_path, bbox=None, datetime=None, **xband),
            item("d", tmp_path, bbox=(179.0, -1.0, -179.0, 1.0), datetime="2021-05-05T00:00:00Z"),
        ],
        tmp_path,
    )
    return StacArchive(tmp_path)


def test_scenes_come_in_the_order_of_their_ids_with_files_that_follow_the_folder(
    archive: StacArchive, tmp_path: Path
) -> None:
    moved = tmp_path.rename(tmp_path.with_name("moved"))
    scenes = list(StacArchive(moved).search())
    assert [scene.id for scene in scenes] == ["a", "b", "c", "d"]
    assert scenes[0].assets["sar"] == moved / "a" / "sar.tif"
    assert scenes[0].assets["optical"] == moved / "a" / "a b%c.tif"
    assert scenes[0].datetime == "2019-08-04T10:00:00Z"
    assert scenes[0].bbox == (1.0, 2.0, 3.0, 4.0)


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({"band": "X"}, ["a", "b"]),
        ({"polarization": "HH"}, ["a", "b"]),
        ({"polarization": "VV"}, []),
        ({"ids": frozenset({"d", "a", "nobody"})}, ["a", "d"]),
        ({"bbox": (2.9, 3.9, 9.0, 9.0)}, ["a", "c"]),
        ({"bbox": (3.1, 2.0, 9.0, 9.0)}, []),
        ({"bbox": (-179.5, 0.0, -170.0, 5.0)}, ["d"]),
        ({"bbox": (170.0, 0.0, -170.0, 5.0)}, ["d"]),
        ({"datetime": "2019-08-04"}, ["a"]),
        ({"datetime": "2019-08-04T10:00:00Z"}, ["a"]),
        ({"datetime": "2019-08-04T12:00:00+02:00"}, ["a"]),
        ({"datetime": "2019-08-04T10:00:01Z"}, []),
        ({"datetime": "2019-12-31/.."}, ["c", "d"]),
        ({"datetime": "../2020-01-01"}, ["a", "c"]),
        ({"band": "X", "datetime": "2019-01-01/2020-01-01"}, ["a"]),
    ],
)
def test_a_search_returns_the_scenes_that_fulfil_every_condition(
    archive: StacArchive, query: dict[str, Any], found: list[str]
) -> None:
    assert ids(archive, **query) == found


@pytest.mark.parametrize("text", ["yesterday", "2020-01-02/2020-01-01", "2020-13-01/.."])
def test_a_time_that_is_none_is_refused_with_examples(archive: StacArchive, text: str) -> None:
    with pytest.raises(ConfigError, match=text.split("/")[0]):
        list(archive.search(datetime=text))


def test_a_configuration_selects_scenes(archive: StacArchive, tmp_path: Path) -> None:
    cfg = ArchiveConfig(uri=str(tmp_path), band="X", bbox=[0.0, 0.0, 9.0, 9.0])
    assert [scene.id for scene in select_scenes(cfg)] == ["a"]
    with pytest.raises(ConfigError, match="four numbers"):
        select_scenes(ArchiveConfig(uri=str(tmp_path), bbox=[0.0]))


def test_equal_items_give_equal_bytes_in_any_order_and_place(tmp_path: Path) -> None:
    files = []
    for root, order in ((tmp_path / "one", ("a", "b", "c")), (tmp_path / "two", ("c", "a", "b"))):
        write_catalogue([item(name, root) for name in order], root)
        files.append({p.relative_to(root): p.read_bytes() for p in sorted(root.rglob("*.json"))})
    assert files[0] == files[1]
    assert len(files[0]) == 4


def test_items_published_one_by_one_are_linked_by_a_later_catalogue(tmp_path: Path) -> None:
    paths = [write_item(item(name, tmp_path), tmp_path) for name in ("b", "a")]
    with pytest.raises(ConfigError, match="no STAC catalogue"):
        StacArchive(tmp_path)
    write_catalogue(paths, tmp_path)
    assert ids(open_archive(tmp_path)) == ["a", "b"]


def test_everything_written_is_valid_stac(archive: StacArchive, tmp_path: Path) -> None:
    """Against the core JSON schemas that pystac carries; extensions would need the network."""
    for path in sorted(tmp_path.glob("*/*.json")):
        document = json.loads(path.read_text())
        validate_dict(document, pystac.STACObjectType.ITEM, extensions=[])
    catalog = json.loads((tmp_path / "catalog.json").read_text())
    validate_dict(catalog, pystac.STACObjectType.CATALOG, extensions=[])
    walked = pystac.Catalog.from_file(str(tmp_path / "catalog.json"))
    assert sorted(found.id for found in walked.get_items()) == ["a", "b", "c", "d"]
    first = next(found for found in walked.get_items() if found.id == "a")
    assert first.assets["sar"].get_absolute_href() == str(tmp_path / "a" / "sar.tif")


def test_an_extension_is_announced_only_when_its_required_fields_are_known(tmp_path: Path) -> None:
    full = {"sar__instrument_mode": "SM", "sar__frequency_band": "X", "sar__polarizations": ["HH"]}
    names = " ".join(item("a", tmp_path, **full, view__incidence_angle=45.0)["stac_extensions"])
    assert "sar/v1.1.0" in names
    assert "view/v1.0.0" in names
    assert item("a", tmp_path, sar__frequency_band="X")["stac_extensions"] == []


def test_nested_catalogues_are_followed_once(tmp_path: Path) -> None:
    write_catalogue([item("a", tmp_path)], tmp_path / "x")
    write_catalogue([item("b", tmp_path)], tmp_path / "y")
    links = [
        {"rel": "child", "href": "./x/catalog.json"},
        {"rel": "child", "href": "y/catalog.json"},
        {"rel": "child", "href": "./catalog.json"},
    ]
    (tmp_path / "catalog.json").write_text(json.dumps({"type": "Catalog", "links": links}))
    assert ids(StacArchive(tmp_path)) == ["a", "b"]


def test_another_programs_item_with_one_data_asset_is_a_scene(tmp_path: Path) -> None:
    path = write_catalogue([item("a", tmp_path)], tmp_path).parent / "a" / "a.json"
    document = json.loads(path.read_text())
    document["assets"] = {"hh": {"href": "./hh.tif", "roles": ["data"]}}
    path.write_text(json.dumps(document))
    (scene,) = StacArchive(tmp_path).search()
    assert scene.assets["sar"] == tmp_path / "a" / "hh.tif"


@pytest.mark.parametrize("damage", ["{", "[]", '{"id": "a"}', "missing"])
def test_a_damaged_item_is_named(tmp_path: Path, damage: str) -> None:
    path = write_catalogue([item("a", tmp_path)], tmp_path).parent / "a" / "a.json"
    path.unlink() if damage == "missing" else path.write_text(damage)
    with pytest.raises(DataError, match=r"a/a\.json"):
        list(StacArchive(tmp_path).search())


def test_a_remote_file_is_refused(tmp_path: Path) -> None:
    path = write_catalogue([item("a", tmp_path)], tmp_path).parent / "a" / "a.json"
    text = path.read_text().replace('"sar.tif"', '"https://example.org/sar.tif"')
    path.write_text(text)
    with pytest.raises(DataError, match="not a local file"):
        list(StacArchive(tmp_path).search())


@pytest.mark.parametrize("name", ["../up", "", ".hidden", "a/b", "ä"])
def test_an_id_that_cannot_name_a_folder_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="cannot name a folder"):
        item(name, tmp_path)


def test_two_scenes_of_one_id_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="twice"):
        write_catalogue([item("a", tmp_path), item("a", tmp_path)], tmp_path)


def test_geometry_and_bbox_go_together(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="both"):
        make_item("a", bbox=(0, 0, 1, 1), geometry=None, datetime=None, properties={}, assets={})


PLUGIN = """
from sarhpc.archive.scene import Scene

class Institute:
    def __init__(self, rest):
        self.rest = rest
    def search(self, *, band=None, bbox=None, datetime=None, ids=None, polarization=None):
        yield Scene(self.rest, {})
"""


def install_plugin(folder: Path, target: str) -> None:
    info = folder / "institute_archive-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: institute-archive\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[sarhpc.archives]\ninstitute = {target}\n")
    (folder / "institute_archive.py").write_text(PLUGIN)


def test_an_institutes_archive_plugs_in_by_its_entry_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_plugin(tmp_path, "institute_archive:Institute")
    monkeypatch.syspath_prepend(tmp_path)
    try:
        assert ids(open_archive("institute:campaign/2019")) == ["campaign/2019"]
        with pytest.raises(ConfigError, match=r"'oracle'.*institute"):
            open_archive("oracle:x")
    finally:
        sys.modules.pop("institute_archive", None)


def test_a_plugin_that_does_not_load_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_plugin(tmp_path, "no_such_module:Institute")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match="no_such_module"):
        open_archive("institute:x")


def test_a_place_without_archive_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no archive at"):
        open_archive(tmp_path / "nothing")


def nested(root: Path, depth: int) -> Path:
    """A chain of catalogues, each in the folder of the one above, with a scene in the last."""
    folder = root
    for number in range(depth):
        folder.mkdir(exist_ok=True)
        links = [{"rel": "child", "href": "./c/catalog.json"}] if number < depth - 1 else []
        (folder / "catalog.json").write_text(json.dumps({"type": "Catalog", "links": links}))
        last, folder = folder, folder / "c"
    return last


def test_many_nested_catalogues_end_in_a_message(tmp_path: Path) -> None:
    links = [{"rel": "child", "href": f"./{n + 1}.json"} for n in range(1500)]
    for number, link in enumerate(links):
        (tmp_path / f"{number}.json").write_text(json.dumps({"type": "Catalog", "links": [link]}))
    with pytest.raises(DataError, match="more than 64 catalogues below each other"):
        ids(StacArchive(tmp_path / "0.json"))
    write_catalogue([item("a", tmp_path)], nested(tmp_path / "n", 60))
    assert ids(StacArchive(tmp_path / "n")) == ["a"]


def test_a_cycle_of_catalogues_ends(tmp_path: Path) -> None:
    write_catalogue([item("a", tmp_path)], tmp_path / "x")
    document = json.loads((tmp_path / "x" / "catalog.json").read_text())
    document["links"].append({"rel": "child", "href": "./again/catalog.json"})
    (tmp_path / "x" / "catalog.json").write_text(json.dumps(document))
    (tmp_path / "x" / "again").symlink_to(".")
    assert ids(StacArchive(tmp_path / "x")) == ["a"]


@pytest.mark.parametrize(
    "href",
    [
        "/vsicurl/http%3A//127.0.0.1/a.tif",
        "/vsicurl/http%253A%252F%252F127.0.0.1/a.tif",
        "%2Fvsicurl/http%253A//127.0.0.1/a.tif",
        "../../../../../../../../../../../../vsicurl/http%253A//127.0.0.1/a.tif",
        "//127.0.0.1/a.tif",
        "file:///etc/passwd",
        "http://[bad/a.tif",
        "a%00.tif",
    ],
)
def test_no_reference_reaches_a_network_however_it_is_quoted(tmp_path: Path, href: str) -> None:
    path = write_catalogue([item("a", tmp_path)], tmp_path).parent / "a" / "a.json"
    path.write_text(path.read_text().replace('"sar.tif"', json.dumps(href)))
    with pytest.raises(DataError, match="not a local file"):
        ids(StacArchive(tmp_path))


def test_a_catalogue_links_no_items_outside_its_folder(tmp_path: Path) -> None:
    write_catalogue([item("a", tmp_path)], tmp_path / "other")
    links = [{"rel": "item", "href": "../other/a/a.json"}]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "catalog.json").write_text(json.dumps({"links": links}))
    with pytest.raises(DataError, match="leaves the folder of the catalogue"):
        ids(StacArchive(tmp_path / "mine"))


def test_a_file_whose_name_holds_a_colon_is_found_again(tmp_path: Path) -> None:
    entry = item("a", tmp_path)
    entry["assets"]["sar"]["href"] = str(tmp_path / "a" / "s1:vv.tif")
    write_catalogue([entry], tmp_path)
    (scene,) = StacArchive(tmp_path).search()
    assert scene.assets["sar"] == tmp_path / "a" / "s1:vv.tif"


@pytest.mark.parametrize("text", ["[" * 100_000, '{"links": 3}', '{"links": [3]}',
                                  '{"links": [{"rel": "item"}]}',
                                  '{"links": [{"rel": "item", "href": 3}]}'])  # fmt: skip
def test_a_catalogue_that_is_none_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "catalog.json").write_text(text)
    with pytest.raises(DataError, match=r"catalog\.json"):
        ids(StacArchive(tmp_path))
