"""The baselines of `bench_tiling.py`: the scene, and other ways to cut it.

Every baseline reads the same complex 0.2 m scene and writes tiles of 512 px at 0.35 m, each with an
8-bit picture and a 16-bit master, in the way its users would: a WarpedVRT read tile by tile, the
whole scene read once and resized by PIL, or the command-line programs of GDAL over the detected
amplitude, which they write once. They are given the top of the picture's scale, which sarhpc
measures in a survey.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from PIL import Image
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

TILE_PX = 512
PIXEL_M = 0.35
NATIVE_M = 0.2
CRS = "EPSG:2154"
BAND = 0.8
BLOCK = 512
RETILE = ("gdal_retile.py", "gdal_retile")
"""Names of GDAL's cutter: with its ending in Debian 12, without in other packages."""

_MASTER_TOPS = 16
_UPPER_LEFT = (700_000.0, 6_250_000.0)
_AMPLITUDE = """<VRTDataset rasterXSize="{size}" rasterYSize="{size}">
<SRS>{crs}</SRS><GeoTransform>{x}, {step}, 0, {y}, 0, -{step}</GeoTransform>
<VRTRasterBand dataType="Float32" band="1" subClass="VRTDerivedRasterBand">
<PixelFunctionType>mod</PixelFunctionType><SourceTransferType>CFloat32</SourceTransferType>
<SimpleSource><SourceFilename>{path}</SourceFilename><SourceBand>1</SourceBand></SimpleSource>
</VRTRasterBand></VRTDataset>
"""


def write_speckle(path: Path, pixels: int) -> None:
    """A complex scene (pixels, pixels) of speckle in a 0.8 band as a tiled GeoTIFF, 0 dB."""
    rng = np.random.default_rng(0)
    band = np.abs(np.fft.fftfreq(BLOCK)) <= BAND / 2
    keep = np.outer(band, band) / np.sqrt(band.mean() ** 2)
    with rasterio.open(path, "w", dtype="complex64", count=1, **_profile(pixels)) as dataset:
        for window in _blocks(pixels):
            noise = rng.standard_normal((BLOCK, BLOCK, 2)).view(np.complex128)[..., 0]
            field = np.fft.ifft2(np.fft.fft2(noise) * keep) / np.sqrt(2)
            dataset.write(field.astype(np.complex64), 1, window=window)


def write_optical(path: Path, pixels: int) -> None:
    """An RGB image (pixels, pixels) over the same ground with the 1/f spectrum of photographs."""
    rng = np.random.default_rng(1)
    frequency = np.hypot.outer(np.fft.fftfreq(BLOCK), np.fft.fftfreq(BLOCK))
    falloff = 1 / np.maximum(frequency, 1 / BLOCK)
    with rasterio.open(path, "w", dtype="uint8", count=3, **_profile(pixels)) as dataset:
        for window in _blocks(pixels):
            grey, *tints = (
                np.fft.ifft2(np.fft.fft2(rng.standard_normal((BLOCK, BLOCK))) * falloff).real
                for _ in range(4)
            )
            field = np.stack([grey + 0.2 * tint for tint in tints])
            codes = np.clip(128 + 40 * field / field.std(), 0, 255).astype(np.uint8)
            dataset.write(codes, window=window)


def _profile(pixels: int) -> dict[str, Any]:
    return {
        "driver": "GTiff",
        "width": pixels,
        "height": pixels,
        "crs": CRS,
        "transform": Affine(NATIVE_M, 0, _UPPER_LEFT[0], 0, -NATIVE_M, _UPPER_LEFT[1]),
        "tiled": True,
        "blockxsize": BLOCK,
        "blockysize": BLOCK,
    }


def _blocks(pixels: int) -> Iterator[Window]:
    for row in range(0, pixels, BLOCK):
        for col in range(0, pixels, BLOCK):
            yield Window(col, row, BLOCK, BLOCK)


def tile_corners(pixels: int) -> list[tuple[int, int]]:
    """Row and column, in pixels of 0.35 m, of every whole tile of a scene of `pixels` a side."""
    starts = range(0, int(pixels * NATIVE_M / PIXEL_M) - TILE_PX + 1, TILE_PX)
    return [(row, col) for row in starts for col in starts]


def warped_vrt(
    path: Path, top: float, resampling: Resampling, out: Path, optical: Path | None = None
) -> int:
    """Tiles of complex `path` by a WarpedVRT read tile by tile, as a tar in folder `out`."""
    with rasterio.open(path) as source, tarfile.open(out / "tiles.tar", "w") as tar:
        with _warped(source, resampling) as vrt:
            corners = tile_corners(source.width)
            for index, (row, col) in enumerate(corners):
                window = Window(col, row, TILE_PX, TILE_PX)
                amplitude = np.abs(vrt.read(1, window=window))
                _add_tile(tar, index, amplitude, top, vrt.window_transform(window))
        if optical is not None:
            _add_optical(tar, optical, corners)
    _sum(out / "tiles.tar")
    return len(corners)


def _warped(source: Any, resampling: Resampling) -> WarpedVRT:
    size = int(source.width * NATIVE_M / PIXEL_M)
    transform = source.transform @ Affine.scale(PIXEL_M / NATIVE_M)
    grid = {"transform": transform, "width": size, "height": size, "resampling": resampling}
    return WarpedVRT(source, crs=source.crs, **grid)


def _add_optical(tar: tarfile.TarFile, path: Path, corners: list[tuple[int, int]]) -> None:
    with rasterio.open(path) as source, _warped(source, Resampling.bilinear) as vrt:
        for index, (row, col) in enumerate(corners):
            rgb = vrt.read(window=Window(col, row, TILE_PX, TILE_PX)).transpose(1, 2, 0)
            picture = io.BytesIO()
            Image.fromarray(rgb).save(picture, "PNG")
            _add(tar, f"{index:011d}.optic.png", picture.getvalue())


def read_once(path: Path, top: float, how: Image.Resampling, intensity: bool, out: Path) -> int:
    """Tiles of complex `path` read whole and resized by PIL, as a tar in folder `out`.

    Args:
        path: the scene.
        top: amplitude that becomes white.
        how: PIL's kernel, which it widens against aliasing.
        intensity: resize intensity, which keeps its mean, rather than amplitude.
        out: folder of the tar.
    """
    with rasterio.open(path) as source, tarfile.open(out / "tiles.tar", "w") as tar:
        detected = np.abs(source.read(1))
        size = int(source.width * NATIVE_M / PIXEL_M)
        box = (0.0, 0.0, size * PIXEL_M / NATIVE_M, size * PIXEL_M / NATIVE_M)
        picture = Image.fromarray(np.square(detected) if intensity else detected)
        whole = np.asarray(picture.resize((size, size), how, box=box))
        amplitude = np.sqrt(whole) if intensity else np.maximum(whole, 0)
        transform = source.transform @ Affine.scale(PIXEL_M / NATIVE_M)
        corners = tile_corners(source.width)
        for index, (row, col) in enumerate(corners):
            tile = np.ascontiguousarray(amplitude[row : row + TILE_PX, col : col + TILE_PX])
            _add_tile(tar, index, tile, top, transform @ Affine.translation(col, row))
    _sum(out / "tiles.tar")
    return len(corners)


def _add_tile(
    tar: tarfile.TarFile, index: int, amplitude: np.ndarray, top: float, transform: Affine
) -> None:
    """Append PNG, master and metadata of one tile to the tar."""
    scale = float(amplitude.max()) / 65535
    png, master = io.BytesIO(), io.BytesIO()
    codes = np.round(255 * np.minimum(amplitude / top, 1)).astype(np.uint8)
    Image.fromarray(codes).save(png, "PNG")
    np.save(master, np.round(amplitude / scale).astype(np.uint16))
    meta = {
        "key": f"{index:011d}",
        "affine": list(transform)[:6],
        "saturated_fraction": float(np.mean(amplitude > top)),
        "master_scale": scale,
    }
    _add(tar, f"{index:011d}.sar.png", png.getvalue())
    _add(tar, f"{index:011d}.sar16.npy", master.getvalue())
    _add(tar, f"{index:011d}.meta.json", json.dumps(meta).encode())


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def _sum(path: Path) -> None:
    """Write the SHA-256 of a tar beside it, and sync both."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        os.fsync(file.fileno())
    path.with_suffix(".sha256").write_text(f"{digest}  {path.name}\n")


def gdal_programs() -> tuple[str, str, str] | None:
    """gdal_translate, gdalwarp and gdal_retile of this machine; None where one is missing."""
    retile = next((found for name in RETILE if (found := shutil.which(name))), None)
    translate, warp = shutil.which("gdal_translate"), shutil.which("gdalwarp")
    if retile is None or translate is None or warp is None:
        return None
    return translate, warp, retile


def gdal_retile(path: Path, top: float, kernel: str, out: Path) -> int:
    """Tiles by gdalwarp over the whole amplitude and gdal_retile, as files in folder `out`.

    Two runs of gdal_retile cut a 16-bit GeoTIFF and a PNG of each tile. The warp ends at whole
    tiles, so that no partial ones are written.
    """
    translate, warp, retile = _programs()
    amplitude = _detected(path, out, translate)
    with rasterio.open(path) as source:
        corners = tile_corners(source.width)
    side = (corners[-1][0] + TILE_PX) * PIXEL_M
    (x, y), step = _UPPER_LEFT, str(PIXEL_M)
    extent = [str(edge) for edge in (x, y - side, x + side, y)]
    warped = out / "warped.tif"
    _call(warp, "-tr", step, step, "-te", *extent, "-r", kernel, amplitude, warped)
    for kind, ending in (("UInt16", "tif"), ("Byte", "png")):
        codes, folder = out / f"{kind}.tif", out / ending
        folder.mkdir()
        _call(translate, "-ot", kind, "-scale", *_scale(kind, top), warped, codes)
        form = {"tif": "GTiff", "png": "PNG"}[ending]
        _call(retile, "-ps", TILE_PX, TILE_PX, "-of", form, "-targetDir", folder, codes)
        codes.unlink()
    warped.unlink()
    amplitude.unlink()
    return len(corners)


def gdal_translate(path: Path, top: float, kernel: str, out: Path) -> int:
    """Tiles by two calls of gdal_translate for each over the amplitude, as files in `out`."""
    translate, _, _ = _programs()
    amplitude = _detected(path, out, translate)
    with rasterio.open(path) as source:
        corners = tile_corners(source.width)
    ratio = PIXEL_M / NATIVE_M
    sides = (TILE_PX * ratio, TILE_PX * ratio)
    for kind, ending in (("UInt16", "tif"), ("Byte", "png")):
        (out / ending).mkdir()
        settings = ["-ot", kind, "-scale", *_scale(kind, top), "-r", kernel]
        for row, col in corners:
            window = ["-srcwin", col * ratio, row * ratio, *sides, "-outsize", TILE_PX, TILE_PX]
            target = out / ending / f"{row}_{col}.{ending}"
            _call(translate, *settings, *window, amplitude, target)
    amplitude.unlink()
    return len(corners)


def _programs() -> tuple[str, str, str]:
    programs = gdal_programs()
    assert programs is not None
    return programs


def _detected(path: Path, out: Path, translate: str) -> Path:
    """The scene's amplitude as a GeoTIFF, written once."""
    with rasterio.open(path) as source:
        size = source.width
    x, y = _UPPER_LEFT
    text = _AMPLITUDE.format(size=size, crs=CRS, x=x, y=y, step=NATIVE_M, path=path)
    view, amplitude = out / "amplitude.vrt", out / "amplitude.tif"
    view.write_text(text)
    _call(translate, "-co", "TILED=YES", view, amplitude)
    view.unlink()
    return amplitude


def _scale(kind: str, top: float) -> list[float]:
    return [0, top * _MASTER_TOPS, 0, 65535] if kind == "UInt16" else [0, top, 0, 255]


def _call(program: str, *words: object) -> None:
    """Run a program of GDAL.

    Raises:
        RuntimeError: it failed; the message holds what it said.
    """
    quiet = [] if program.endswith(".py") else ["-q"]
    command = [program, *quiet, *(str(word) for word in words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr}")


def tar_powers(folder: Path) -> Iterator[np.ndarray]:
    """Intensity (H, W) of every tile of the tar in `folder`, from its 16-bit master."""
    with tarfile.open(folder / "tiles.tar") as file:
        for member in [m for m in file if m.name.endswith("sar16.npy")]:
            meta = file.extractfile(member.name.replace("sar16.npy", "meta.json"))
            codes = file.extractfile(member)
            assert meta is not None
            assert codes is not None
            scale = json.loads(meta.read())["master_scale"]
            yield (np.load(io.BytesIO(codes.read())) * scale) ** 2


def file_powers(folder: Path, top: float) -> Iterator[np.ndarray]:
    """Intensity (H, W) of every 16-bit GeoTIFF that GDAL cut into `folder`."""
    for path in sorted((folder / "tif").glob("*.tif")):
        with rasterio.open(path) as dataset:
            yield (dataset.read(1) * (top * _MASTER_TOPS / 65535)) ** 2
