"""Files that someone else wrote, and what of the project reads each of them."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from hpc.errors import HpcError
from sarhpc.archive.ancillary.label_map import read_label
from sarhpc.archive.ancillary.optical_images import list_optical
from sarhpc.archive.ancillary.optical_resampling import read_optical as read_optical_image
from sarhpc.archive.catalog_builder import catalog_directory
from sarhpc.archive.formats.readers import find_format, open_sar
from sarhpc.archive.scene import Scene
from sarhpc.archive.stac_catalog import StacArchive
from sarhpc.captioning.config import CaptionSetConfig
from sarhpc.captioning.tuning.datasets import open_set, read_image
from sarhpc.shards.reader import read_shard
from sarhpc.shards.schema import validate_sample
from sarhpc.tiling.config import ImportConfig, TileConfig
from sarhpc.tiling.image_import import import_shard, plan_import
from sarhpc.tiling.plan import plan_scene

_SIDECAR = """
defaults: {role: sar, range_direction: "+col", spacing_m: [1.0, 1.0], incidence_deg: 40}
files: {"*.md": {role: skip}}
"""
_MOST_PIXELS = 512


@dataclass(frozen=True)
class Target:
    """One file, and a reader of it; `read` takes the folder and the file's place in it."""

    name: str
    file: Path
    place: str
    """Where the file lies in the folder that is read."""
    read: Callable[[Path, Path], None]
    beside: Path | None = None
    """Folder whose content lies around the file."""

    @property
    def product(self) -> str | None:
        """Name of the SAFE folder that the file is part of."""
        named = self.place.partition("/")[0]
        return named if named.upper().endswith(".SAFE") else None

    def data(self) -> bytes:
        """Bytes to mutate: of a long tar its first members only."""
        data = self.file.read_bytes()
        return data if len(data) < 4 << 20 else _first_members(data, 200_000)

    def lay_out(self, folder: Path) -> Path:
        """The content around the file, copied into an empty `folder`; where the file belongs."""
        for file in self.beside.rglob("*") if self.beside is not None else ():
            # Of a SAFE folder one measurement, with its annotation: others only take time.
            if file.is_file() and (self.product is None or _belongs(file, self.file)):
                start = self.beside.parent if self.product else self.beside
                copy = folder / file.relative_to(start)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, copy)
        path = folder / self.place
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix.lower() == ".txt":
            Image.new("L", (16, 16), 7).save(path.with_suffix(".png"))
        return path

    def names(self, folder: Path) -> list[str]:
        """What an error about the content of `folder` may name."""
        return [str(folder), *(path.name for path in folder.rglob("*") if path.is_file())]


def _belongs(file: Path, other: Path) -> bool:
    """Whether two files of a SAFE folder are of one measurement, or one is of them all."""
    stems = [re.sub("^(calibration|noise|rfi)-", "", path.stem) for path in (file, other)]
    return stems[0] == stems[1] or "manifest" in stems


def _first_members(data: bytes, size: int) -> bytes:
    """A tar of the first members of the tar `data`, of about `size` bytes."""
    at = 0
    while at < size:
        at += 512 + -(-int(data[at + 124 : at + 135], 8) // 512) * 512
    return data[:at] + bytes(1024)


def targets_under(root: Path) -> Iterator[Target]:
    """A target for each file under `root` and each way a user has of reading it."""
    for file in sorted(path for path in root.rglob("*") if path.is_file()):
        name = file.relative_to(root).as_posix()
        safe = next((p for p in file.parents if p.suffix.upper() == ".SAFE"), None)
        if safe is not None:
            place = f"{safe.name}/{file.relative_to(safe).as_posix()}"
            yield Target(f"safe:{name}", file, place, read_safe_folder, safe)
            continue
        for kind, suffixes, read in _READERS:
            if file.name.lower().endswith(suffixes):
                # A table of images is read with the images it names.
                beside = file.parent if file.name == "metadata.jsonl" else None
                yield Target(f"{kind}:{name}", file, file.name, read, beside)


def read_safe_folder(folder: Path, path: Path) -> None:
    """Read the first and the last image of each measurement; some real ones have no position."""
    for path in sorted(folder.rglob("measurement/*")):
        form = find_format(path)
        assert form is not None
        for layer in {form.layers(path)[0], form.layers(path)[-1]}:
            properties = {"sarhpc:spacing_m": [10.0, 10.0], "sarhpc:range_direction": "+col"}
            properties |= {k: v for k, v in form.properties(path, layer.name).items() if v}
            _read_scene(Scene("scene", {"sar": path}, properties))


def read_scene(folder: Path, path: Path) -> None:
    """Catalogue the folder as SAR images and read part of each scene, as tiling does."""
    (folder / "sarhpc.yaml").write_text(_SIDECAR)
    out = folder.parent / "catalogue"
    shutil.rmtree(out, ignore_errors=True)
    catalog_directory(folder, out)
    for scene in StacArchive(out).search():
        _read_scene(scene)


def _read_scene(scene: Scene) -> None:
    reader = open_sar(scene, True)
    try:
        height, width = reader.header.shape
        rows, cols = min(height, _MOST_PIXELS), min(width, _MOST_PIXELS)
        reader.read((0, rows), (0, cols))
        reader.read((height - rows, height), (width - cols, width))
        if reader.header.local is not None:
            reader.header.local.at(height / 2, width / 2)
    finally:
        reader.close()
    plan_scene(scene, TileConfig(tile_px=64))


def read_optical(folder: Path, path: Path) -> None:
    """List the folder as optical images, and resample each to a tile, also as a label map."""
    for image in list_optical(str(folder)).images:
        west, south, east, north = image.bbox
        affine = ((east - west) / 32, 0.0, west, 0.0, (south - north) / 32, north)
        read_optical_image(Path(image.path), affine, "EPSG:4326", (32, 32))
        read_label(Path(image.path), affine, "EPSG:4326", (32, 32))


def read_import(folder: Path, path: Path) -> None:
    """Import the folder as foreign images."""
    cfg = ImportConfig(path=str(folder), colour="luma", group="city")
    for number, inputs in enumerate(plan_import(cfg).shards):
        for sample in import_shard(number, inputs, cfg, fingerprints=True).samples:
            validate_sample(sample)


def read_picture(folder: Path, path: Path) -> None:
    """Read the file as the image of a caption set."""
    read_image(path)


def read_tar(folder: Path, path: Path) -> None:
    """Read the file as a shard, then import it."""
    try:
        assert all(sample.key for sample in read_shard(path))
    finally:
        read_import(folder, path)


def read_captions(folder: Path, path: Path) -> None:
    """Read the file as each layout of captions; of the refusals the last is raised."""
    refused: HpcError | None = None
    for kind in ("jsonl", "karpathy", "nwpu"):
        cfg = CaptionSetConfig(kind=kind, path=str(path), images=str(folder), skip_missing=True)
        try:
            open_set(cfg)
        except HpcError as error:
            refused = error
            if path.name not in str(error):
                raise
    if refused is not None:
        raise refused


_RASTERS = (".tif", ".tiff", ".nitf", ".ntf", ".h5")
_PICTURES = (".png", ".jpg", ".jpeg", ".tif")
_READERS: tuple[tuple[str, tuple[str, ...], Callable[[Path, Path], None]], ...] = (
    ("scene", _RASTERS, read_scene),
    ("optical", (".tif", ".tiff"), read_optical),
    ("import", (*_PICTURES, ".txt", ".jsonl"), read_import),
    ("picture", _PICTURES, read_picture),
    ("tar", (".tar",), read_tar),
    ("captions", (".json", ".jsonl", ".json.gz", ".jsonl.gz", "caps.txt"), read_captions),
)

KINDS = ("safe", *(kind for kind, _, _ in _READERS))
"""Ways of reading; the first part of a target's name."""
