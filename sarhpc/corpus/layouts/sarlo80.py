"""The layout of SARLO-80 (ONERA, arXiv 2606.20523): its members and its keys of `meta.json`."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sarhpc.corpus.layouts.layout import Layout, pixels_of
from sarhpc.corpus.reading import IndexedImage
from sarhpc.corpus.rows import IMAGE
from sarhpc.shards.images import decode_array, decode_gray8, encode_array
from sarhpc.shards.radiometry import MASTER_MAX, law_of
from sarhpc.shards.sample import Sample, encode_json
from sarhpc.shards.writer import write_shard as write_tar

MASTER = "sar16.npy"
SHARDS_PER_CHUNK = 1000
LENGTHS = ("SHORT", "MID", "LONG")


def sarlo_meta(meta: Mapping[str, Any], caption: str, shape: tuple[int, ...]) -> dict[str, Any]:
    """`meta.json` with the keys of SARLO-80 beside ours; null for what has no place.

    Args:
        meta: of the sample.
        caption: its text.
        shape: of the image, (azimuth, range) px where range runs along columns.
    """
    captions = meta.get("caption")
    captions = captions if isinstance(captions, Mapping) else {}
    return {
        **meta,
        "city": None,
        "city_id_satellite_pass": None,
        "Nb_pixel_a": shape[0],
        "Nb_pixel_r": shape[1],
        "spacing_eff_az": meta.get("pixel_m"),
        "spacing_eff_rg": meta.get("pixel_m"),
        "operation_sampling": None,
        "bbox_ecf": None,
        "bbox_llh": None,
        "incidence_angles": {
            "terrain_deg": None,
            "ellipsoid_deg": meta.get("incidence_deg"),
            "sicd_deg": None,
        },
        "caption": {length: captions.get(length) or caption for length in LENGTHS},
        "phase": None,
    }


def amplitude_of(sample: Sample) -> NDArray[np.float32]:
    """Amplitude (H, W): by the law of the picture, or the level of 0 to 1 where none is known.

    From the 16-bit master where the sample has one.

    Raises:
        DataError: image, master or metadata are damaged.
    """
    if MASTER in sample.members:
        level = decode_array(sample.members[MASTER]).astype(np.float32) / np.float32(MASTER_MAX)
    else:
        level = decode_gray8(sample.members[IMAGE]).astype(np.float32) / np.float32(255)
    law = sample.meta.get("normalisation")
    return law_of({**sample.meta, "key": sample.key}).amplitudes(level) if law else level


def sarlo_sample(image: IndexedImage) -> Sample:
    """The sample with the members of SARLO-80."""
    sample = image.sample
    amplitude = amplitude_of(sample)
    meta = sarlo_meta(sample.meta, sample.caption or "", amplitude.shape)
    members = {
        "sar.png": sample.members[IMAGE],
        "sar.npy": encode_array(amplitude.astype(np.complex64)),
        "meta.json": encode_json(meta),
    }
    return Sample(sample.key, members, sample.path)


def shard_place(shard: str) -> PurePosixPath:
    """Place of a shard in its split, `chunk_000/shard-00000.tar`, from its name in the corpus."""
    stem = PurePosixPath(shard).stem
    if not (stem.isascii() and stem.isdigit()):
        return PurePosixPath("chunk_000", f"shard-{stem}.tar")
    number = int(stem)
    return PurePosixPath(f"chunk_{number // SHARDS_PER_CHUNK:03d}", f"shard-{number:05d}.tar")


def front_matter(out: Path) -> dict[str, Any]:
    """The header for `datasets`, which cannot hold complex arrays: it reads all but `sar.npy`."""
    names = {"train": "train", "val": "validation", "test": "test"}
    files = [
        {"split": name, "path": f"{split}/*/*.tar"}
        for split, name in names.items()
        if any((out / split).glob("*/*.tar"))
    ]
    features = {"sar.png": "image", "meta.json": "json", "__key__": "string"}
    listed = [{"name": name, "dtype": kind} for name, kind in features.items()]
    return {
        "configs": [{"config_name": "default", "data_files": files}],
        "dataset_info": [{"config_name": "default", "features": listed}],
    }


def write_shard(out: Path, shard: str, images: Iterable[IndexedImage]) -> int:
    """Write the images of one split as one tar, one sample in memory at a time."""
    remaining = iter(images)
    first = next(remaining, None)
    if first is None:
        return 0
    path = out / first.row["split"] / shard_place(shard)
    listed = itertools.chain([first], remaining)
    if path.exists():
        return sum(1 for _ in listed)
    return write_tar(path, map(sarlo_sample, listed)).samples


SARLO80 = Layout(
    name="sarlo80",
    summary="WebDataset tars with the members and meta.json keys of SARLO-80",
    write_shard=write_shard,
    bytes_of=lambda row: float(row["size"] or 0) + 8 * pixels_of(row) + 4096,
    files_per_image=0,
    front_matter=front_matter,
    about="""\
`SPLIT/chunk_000/shard-00000.tar`, WebDataset tars with members `KEY.sar.png`, `KEY.sar.npy`
(complex64) and `KEY.meta.json`, as in SARLO-80. `meta.json` has its keys: `Nb_pixel_a`,
`Nb_pixel_r`, `spacing_eff_az`, `spacing_eff_rg`, `incidence_angles` and `caption` with SHORT, MID
and LONG (the same prompt where the corpus has one text). A generated image has no place and no
phase: `city`, `bbox_ecf`, `bbox_llh` and `phase` are null, the modulus of `sar.npy` is the
amplitude and its imaginary part is zero, and there is no `sicd.xml`. Amplitude follows from the
`normalisation` in `meta.json`; where that is null, it is the grey level from 0 to 1.
""",
)
