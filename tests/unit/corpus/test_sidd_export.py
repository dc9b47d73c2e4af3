"""SIDD of generated images: valid, at the declared place, and refused without one."""

from __future__ import annotations

import re
from pathlib import Path

import lxml.etree
import numpy as np
import pytest
import sarkit.sidd
from corpora import corpus_of, generated
from sarkit.verification import SiddConsistency

from hpc.errors import ConfigError, DataError
from sarhpc.archive.formats.sidd.metadata import read_sidd_metadata
from sarhpc.archive.formats.sidd.writer import NAMESPACE
from sarhpc.corpus.export import export_corpus
from sarhpc.corpus.layouts.sidd import read_declaration, sidd_layout
from sarhpc.shards.images import decode_gray8

PAGE = Path(__file__).resolve().parents[3] / "docs" / "guide" / "corpus.md"


@pytest.fixture
def declaration(tmp_path: Path) -> Path:
    """The one that the guide prints."""
    [text] = re.findall(r"^```yaml\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    path = tmp_path / "nominal.yaml"
    path.write_text(text)
    return path


def exported(tmp_path: Path, declaration: Path, **changes: object) -> Path:
    """The SIDD of one image with these metadata."""
    corpus_of(tmp_path / "corpus", [generated(0, 0, **changes)])
    layout = sidd_layout(read_declaration(declaration))
    export_corpus(tmp_path / "corpus", tmp_path / "out", layout)
    [path] = (tmp_path / "out").rglob("*.nitf")
    return path


@pytest.mark.parametrize("side", ["right", "left"])
def test_a_file_is_valid_and_states_what_was_declared(tmp_path, declaration, side):
    declaration.write_text(declaration.read_text().replace("side: right", f"side: {side}"))
    path = exported(tmp_path, declaration, polarization="HV")
    with path.open("rb") as file:
        reader = sarkit.sidd.NitfReader(file)
        pixels, tree = reader.read_image(0), reader.metadata.images[0].xmltree
    with path.open("rb") as file:
        consistency = SiddConsistency.from_file(file)
        consistency.check()
    schema = lxml.etree.XMLSchema(file=str(sarkit.sidd.VERSION_INFO[NAMESPACE]["schema"]))
    schema.assertValid(tree)
    assert consistency.failures() == {}
    assert np.array_equal(pixels, decode_gray8(generated(0, 0).members["sar.png"]))
    assert tree.findtext(".//{*}ProductName").startswith("SYNTHETIC")
    found = read_sidd_metadata(path)
    assert (found.range_direction, found.look_side, found.polarization) == ("+col", side, "HV")
    assert found.incidence_deg == pytest.approx(45.0, abs=1e-6)
    assert found.spacing_m == pytest.approx((0.35, 0.35))
    middle = found.placement.to_map(np.array([[12.0, 8.0]]))  # corners of pixels: 24 x 16 px
    assert np.allclose(middle[0], _utm(43.5, 1.5), atol=0.01)
    assert np.linalg.det(np.reshape(found.affine, (2, 3))[:, :2]) < 0, "not mirrored"


def _utm(lat: float, lon: float) -> tuple[float, float]:
    from pyproj import Transformer

    x, y = Transformer.from_crs("EPSG:4326", "EPSG:32631", always_xy=True).transform(lon, lat)
    return float(x), float(y)


def test_spacing_on_the_slant_plane_is_put_on_the_ground(tmp_path, declaration):
    found = read_sidd_metadata(exported(tmp_path, declaration, plane="slant"))
    assert found.spacing_m == pytest.approx((0.35, 0.35 / np.sin(np.radians(45.0))))


def test_equal_images_are_equal_files(tmp_path, declaration):
    first = exported(tmp_path / "a", declaration).read_bytes()
    assert exported(tmp_path / "b", declaration).read_bytes() == first


@pytest.mark.parametrize("name", ["pixel_m", "range_direction"])
def test_an_image_that_does_not_state_its_geometry_is_named_before_any_is_written(
    tmp_path, declaration, name
):
    with pytest.raises(DataError, match="image 00000000000 does not state its"):
        exported(tmp_path, declaration, **{name: None})
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("lat_deg: 43.5", "lat_deg: 143.5", "lat_deg is 143.5, not -90 to 90"),
        ("mode: STRIPMAP", "mode: ISAR", "mode is 'ISAR': one of SPOTLIGHT"),
        ("12:00:00Z", "12:00:00", "without a zone"),
        ("12:00:00Z", "noon", "Invalid isoformat"),
        ("speed_m_s: 100.0", "speed_m_s: .nan", "speed_m_s is nan"),
        ("sensor: NOMINAL\n", "", "sensor is missing"),
        ("sensor: NOMINAL", "sensor: [", "cannot read the declaration"),
    ],
)
def test_a_wrong_declaration_is_refused(declaration, old, new, words):
    text = declaration.read_text()
    assert old in text
    declaration.write_text(text.replace(old, new))
    with pytest.raises(ConfigError, match=re.escape(words)):
        read_declaration(declaration)
