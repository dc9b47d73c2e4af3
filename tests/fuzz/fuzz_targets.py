"""Files that someone else wrote, and what of the project reads each of them."""

from __future__ import annotations

import gzip
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from hpc.errors import HpcError
from sarhpc.archive.ancillary.optical_images import list_optical
from sarhpc.archive.catalog_builder import catalog_directory
from sarhpc.archive.formats.readers import open_sar
from sarhpc.archive.stac_catalog import StacArchive
from sarhpc.captioning.config import CaptionSetConfig
from sarhpc.captioning.tuning.datasets import open_set, read_image
from sarhpc.shards.reader import read_shard
from sarhpc.shards.schema import validate_sample
from sarhpc.tiling.config import ImportConfig
from sarhpc.tiling.image_import import import_shard, plan_import

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

    def data(self) -> bytes:
        """Bytes to mutate: of a long tar its first members only."""
        data = self.file.read_bytes()
        return data if len(data) < 4 << 20 else _first_members(data, 200_000)

    def lay_out(self, folder: Path) -> Path:
        """The content around the file, copied into an empty `folder`; where the file belongs."""
        if self.beside is not None:
            shutil.copytree(self.beside, folder, dirs_exist_ok=True)
            for path in (folder, *folder.rglob("*")):
                os.chmod(path, 0o700)
        path = folder / self.place
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix.lower() == ".txt":
            Image.new("L", (16, 16), 7).save(path.with_suffix(".png"))
        return path

    def names(self, folder: Path) -> list[str]:
        """What an error about the content of `folder` may name."""
        return [str(folder), *(path.name for path in folder.rglob("*") if path.is_file())]


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
            yield Target(f"scene:{name}", file, place, read_safe_folder, safe.parent / safe.name)
            continue
        for kind, suffixes, read in _READERS:
            if file.name.lower().endswith(suffixes):
                # A table of images is read with the images it names.
                beside = file.parent if file.name == "metadata.jsonl" else None
                yield Target(f"{kind}:{name}", file, file.name, read, beside)


def read_safe_folder(folder: Path, path: Path) -> None:
    """Catalogue a SAFE folder and read its scenes; some of the real ones lack control points."""
    (folder / "sarhpc.yaml").write_text("defaults: {spacing_m: [10.0, 10.0]}\n")
    _read_scenes(folder)


def read_scene(folder: Path, path: Path) -> None:
    """Catalogue the folder as SAR images and read part of each scene, as tiling does."""
    (folder / "sarhpc.yaml").write_text(_SIDECAR)
    _read_scenes(folder)


def _read_scenes(folder: Path) -> None:
    out = folder.parent / "catalogue"
    shutil.rmtree(out, ignore_errors=True)
    catalog_directory(folder, out)
    for scene in StacArchive(out).search():
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


def read_optical(folder: Path, path: Path) -> None:
    """List the folder as optical images, which leaves out what cannot be read."""
    list_optical(str(folder))


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
        for sample in read_shard(path):
            sample.meta  # noqa: B018
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


def read_captions_compressed(folder: Path, path: Path) -> None:
    """As `read_captions`, of a file whose mutated text is compressed."""
    packed = path.with_name(f"{path.name}.gz")
    packed.write_bytes(gzip.compress(path.read_bytes(), 1))
    read_captions(folder, packed)


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
