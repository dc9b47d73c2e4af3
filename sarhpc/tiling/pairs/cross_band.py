"""The cross-band layer `other`: another radar image of the ground, in the pixels of a tile."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sarhpc.archive.scene import SarReader, Scene
from sarhpc.tiling.grid import SceneFrame, scene_frame
from sarhpc.tiling.metadata import polarization_of
from sarhpc.tiling.orientation import Interval
from sarhpc.tiling.pairs.area_resampling import Place, area_kernels, overlay, pixel_extent
from sarhpc.tiling.read_errors import classify_read_errors
from sarhpc.tiling.resampling import looks_factor
from sarhpc.tiling.survey import SceneConstants


@dataclass(frozen=True)
class CrossBandLayer:
    """The cross-band layer of one tile."""

    codes: NDArray[np.uint8]
    """Picture (H, W) by the partner's own law; 0 where it has no data."""
    note: dict[str, Any]
    """Its entry in `meta.json`."""


@dataclass(frozen=True)
class Partner:
    """An open scene that images the ground of another one."""

    scene: Scene
    reader: SarReader
    frame: SceneFrame
    constants: SceneConstants
    correlation: tuple[NDArray[np.float64], NDArray[np.float64]]
    """Autocorrelation of its speckle along rows and columns."""
    days: float | None
    """Days between both acquisitions, where known."""

    def cut(
        self, frame: SceneFrame, rows: Interval, cols: Interval, least: float
    ) -> CrossBandLayer | None:
        """The layer of output pixels (rows, cols) of `frame`; None below `least` coverage.

        Raises:
            DamagedError: the partner's file cannot be read.
        """
        if frame.crs is None:
            return None
        shape = (rows[1] - rows[0], cols[1] - cols[0])
        place = Place(frame.window_affine(rows, cols), frame.crs, shape)
        with classify_read_errors(f"scene {self.scene.id}"):
            intensity, valid = overlay(self.reader, self.frame, place)
        if valid.mean() < least:
            return None
        codes = self.constants.normalisation.encode(np.sqrt(intensity))
        codes[~valid] = 0
        return CrossBandLayer(codes, self._note(place, float(valid.mean())))

    def _note(self, place: Place, share: float) -> dict[str, Any]:
        header, scene = self.reader.header, self.scene
        kernels = area_kernels(self.frame, place)
        factors = [looks_factor(*each) for each in zip(kernels, self.correlation, strict=True)]
        incidence = (
            header.incidence_deg if header.incidence_deg is not None else scene.incidence_deg
        )
        return {
            "scene_id": scene.id,
            "datetime": scene.datetime,
            "delta_days": self.days,
            "band": scene.band,
            "polarization": polarization_of(scene),
            "look_side": header.look_side,
            "incidence_deg": incidence,
            "native_pixel_m": list(header.spacing_m),
            "resampling": "area",
            "pixels": [round(each, 4) for each in pixel_extent(self.frame, place)],
            "enl": round(header.looks * math.prod(factors), 4),
            "calibration": header.calibration,
            "normalisation": self.constants.normalisation.to_json(),
            "valid_fraction": round(share, 6),
        }


@contextmanager
def open_partner(
    inputs: Mapping[str, Any],
    find: Callable[[str], Scene],
    opener: Callable[[Scene], SarReader],
) -> Iterator[Partner]:
    """The open partner that the entry `other` of a shard's inputs names.

    Raises:
        DamagedError: it is no longer in the archive, or cannot be read.
    """
    with classify_read_errors(f"scene {inputs['scene_id']}"):
        scene = find(inputs["scene_id"])
        reader = opener(scene)
    with closing(reader):
        rows, cols = (np.array(each, np.float64) for each in inputs["correlation"])
        yield Partner(
            scene,
            reader,
            frame=scene_frame(reader.header, None),
            constants=SceneConstants.from_json(inputs["scene"]),
            correlation=(rows, cols),
            days=inputs["days"],
        )
