"""The survey: constants that all tiles of a scene share, measured once before it is tiled.

Spectrum centre, gain of the band-limited resampling, looks after averaging, and the constants of
the 8-bit picture. Measured at planning and carried in the plan, so that every shard of a scene
uses the same numbers. Scenes up to `survey_mpx` are measured whole. Larger ones are sampled by
windows spread evenly over the scene; mean and deviation then carry a relative error of about the
spread of mean amplitude between windows over the root of their number (0.4 / sqrt(122) = 3.6 %,
0.3 dB, for a varied scene and the default size).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sarhpc.archive.scene import SarReader
from sarhpc.shards.radiometry import Normalisation, amplitude_of_db, amplitude_of_log1p
from sarhpc.tiling.block import Block, Patch, Sampling, patch_for, read_patch, resample_patch
from sarhpc.tiling.config import TileConfig
from sarhpc.tiling.db_window import LevelCounts, LevelTally, scene_window
from sarhpc.tiling.grid import SceneFrame
from sarhpc.tiling.looks import Chip, homogeneous_chips, speckle_correlation
from sarhpc.tiling.orientation import Interval
from sarhpc.tiling.resampling import intensity_taps, looks_factor

Window = tuple[Interval, Interval]

_WHOLE_SIDE = 1024
_SAMPLE_SIDE = 256
_CENTROID_WINDOWS = 16
_LEAST_COHERENCE = 0.05

_LEAST_SHARE = 0.02
"""Share of an even sample that must be valid for it to represent the scene."""

_STRIP_COLS = 8192


@dataclass(frozen=True)
class SceneConstants:
    """Constants of all tiles of a scene, carried in the inputs of its shards."""

    sampling: Sampling
    normalisation: Normalisation
    enl: float
    """Expected equivalent number of looks of the tiles."""
    surveyed: float
    """Share of the scene's pixels that were measured."""
    levels: LevelCounts | None = field(default=None, compare=False, repr=False)
    """Pixels by level, where the window of the archive is chosen by them; not carried on."""
    negative_fraction: float = 0.0
    """Share of the pixels measured that were stored negative, and are zero in the tiles."""

    def to_json(self) -> dict[str, Any]:
        """The constants as plain JSON values."""
        value = asdict(replace(self, levels=None))
        del value["levels"]
        if not self.negative_fraction:
            del value["negative_fraction"]
        value["sampling"]["centroid"] = list(self.sampling.centroid)
        value["normalisation"] = self.normalisation.to_json()
        return value

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> SceneConstants:
        """The constants in a shard's inputs."""
        sampling = {**value["sampling"], "centroid": tuple(value["sampling"]["centroid"])}
        return cls(
            Sampling(**sampling),
            Normalisation.from_json(value["normalisation"]),
            value["enl"],
            value["surveyed"],
            negative_fraction=value.get("negative_fraction", 0.0),
        )


def survey_scene(reader: SarReader, frame: SceneFrame, cfg: TileConfig) -> SceneConstants | None:
    """The constants of a scene; None if it has no valid pixel among those measured.

    Raises:
        DataError: the reader cannot read the scene.
    """
    windows, share = survey_windows(frame.shape, cfg.survey_mpx)
    method = _method(reader.header.is_complex, frame, cfg)
    sampling = Sampling(method, cfg.transition)
    if method == "fft":
        sampling = replace(sampling, centroid=_spectrum_centre(reader, frame, windows))
    tally = _Tally(
        looks=reader.header.looks if method == "multilook" else None,
        keep_values=cfg.normalisation == "percentile"
        or (cfg.normalisation == "db" and cfg.db_window is None and cfg.db_scope == "scene"),
        levels=LevelTally() if chooses_window(cfg) else None,
    )
    _measure(reader, frame, sampling, windows, tally)
    if share < 1 and tally.count < _LEAST_SHARE * cfg.survey_mpx * 1e6:
        # In a nearly empty scene an even sample misses the data, so windows with data are searched.
        lit, share = data_windows(reader, frame, cfg.survey_mpx, skip=frozenset(windows))
        if method == "fft" and tally.count == 0:
            sampling = replace(sampling, centroid=_spectrum_centre(reader, frame, lit))
        _measure(reader, frame, sampling, lit, tally)
    if tally.count == 0:
        return None
    gain = tally.gain if method == "fft" else 1.0
    factor = 1.0 if method != "multilook" else _looks_gained(frame, tally)
    levels = None if tally.levels is None else tally.levels.counted(gain)
    return SceneConstants(
        sampling=replace(sampling, gain=gain),
        normalisation=_normalisation(tally, gain, cfg, levels),
        enl=reader.header.looks * factor,
        surveyed=round(share, 6),
        levels=levels,
        negative_fraction=round(getattr(reader, "negative_fraction", 0.0), 6),
    )


def chooses_window(cfg: TileConfig) -> bool:
    """Whether one dB window is chosen for all scenes, from what their surveys count."""
    return cfg.normalisation == "db" and cfg.db_scope == "archive" and cfg.db_window is None


def _measure(
    reader: SarReader, frame: SceneFrame, sampling: Sampling, windows: list[Window], tally: _Tally
) -> None:
    for rows, cols in windows:
        patch = patch_for(reader, frame, sampling, rows, cols)
        inner = frame.canonical_window(rows, cols)
        tally.add(patch, inner, resample_patch(patch, frame, sampling, rows, cols))


def data_windows(
    reader: SarReader,
    frame: SceneFrame,
    budget_mpx: float,
    skip: frozenset[Window] = frozenset(),
) -> tuple[list[Window], float]:
    """Windows with data, spread evenly, and the share of pixels that were searched.

    Reads the validity of the whole scene once, strip by strip.
    """
    height, width = frame.shape
    every = [(r, c) for r in _steps(height, _SAMPLE_SIDE) for c in _steps(width, _SAMPLE_SIDE)]
    lit = []
    for rows, row_windows in itertools.groupby(every, key=lambda window: window[0]):
        known = _any_valid_columns(reader, frame, rows)
        for window in row_windows:
            (first, last) = frame.canonical_window(*window)[1]
            if window not in skip and known[first:last].any():
                lit.append(window)
    count = max(int(budget_mpx * 1e6 / _SAMPLE_SIDE**2), 1)
    return lit[:: max(math.ceil(len(lit) / count), 1)], 1.0


def _any_valid_columns(reader: SarReader, frame: SceneFrame, rows: Interval) -> NDArray[np.bool_]:
    """Which canonical columns (W,) have a valid pixel in the output rows `rows`."""
    width = frame.canonical_shape[1]
    down = frame.canonical_window(rows, (0, 1))[0]
    known = np.zeros(width, np.bool_)
    for first in range(0, width, _STRIP_COLS):
        cols = (first, min(first + _STRIP_COLS, width))
        known[slice(*cols)] = read_patch(reader, frame, down, cols).valid.any(axis=0)
    return known


def survey_windows(shape: tuple[int, int], budget_mpx: float) -> tuple[list[Window], float]:
    """Output windows to measure, and their share of the scene's pixels."""
    total = shape[0] * shape[1]
    side = _WHOLE_SIDE if total <= budget_mpx * 1e6 else _SAMPLE_SIDE
    down, across = _steps(shape[0], side), _steps(shape[1], side)
    number = len(down) * len(across)
    count = max(int(budget_mpx * 1e6 / side**2), 1)
    if side == _WHOLE_SIDE or count >= number:
        return list(itertools.product(down, across)), 1.0
    # Steps of the golden section, coprime to the number of windows, never meet the same column.
    step = round(number * 0.6180339887)
    while math.gcd(step, number) != 1:
        step += 1
    places = (divmod(index * step % number, len(across)) for index in range(count))
    chosen = [(down[row], across[col]) for row, col in places]
    area = sum((r[1] - r[0]) * (c[1] - c[0]) for r, c in chosen)
    return chosen, area / total


def _steps(length: int, side: int) -> list[Interval]:
    count = max(math.ceil(length / side), 1)
    edges = [length * index // count for index in range(count + 1)]
    return list(itertools.pairwise(edges))


def _method(is_complex: bool, frame: SceneFrame, cfg: TileConfig) -> str:
    if all(ratio == 1 for ratio in frame.ratio):
        return "none"
    return "fft" if is_complex and not cfg.detect_first else "multilook"


def _spectrum_centre(
    reader: SarReader, frame: SceneFrame, windows: list[Window]
) -> tuple[float, float]:
    """Centre of the spectrum per axis, cycles per native pixel, from the lag-1 correlation.

    The correlation method of Madsen, "Estimating the Doppler centroid of SAR data", IEEE TAES 25,
    1989. A white spectrum has no centre; 0 is returned.
    """
    lag = np.zeros(2, np.complex128)
    power = 0.0
    for rows, cols in windows[:_CENTROID_WINDOWS]:
        pixels = read_patch(reader, frame, *frame.canonical_window(rows, cols)).pixels
        lag[0] += np.vdot(pixels[:-1], pixels[1:])
        lag[1] += np.vdot(pixels[:, :-1], pixels[:, 1:])
        power += float(np.vdot(pixels, pixels).real)
    if power == 0:
        return 0.0, 0.0
    cycles = np.round(np.angle(lag) / (2 * np.pi), 6)
    row, col = np.where(np.abs(lag) / power < _LEAST_COHERENCE, 0.0, cycles)
    return float(row), float(col)


@dataclass
class _Tally:
    """Running sums over the windows of a scene."""

    looks: float | None
    """Nominal looks, where chips of homogeneous speckle are needed."""
    keep_values: bool
    levels: LevelTally | None = None
    count: int = 0
    total: float = 0.0
    squares: float = 0.0
    power_in: float = 0.0
    count_in: int = 0
    values: list[NDArray[np.float32]] = field(default_factory=list)
    chips: list[Chip] = field(default_factory=list)

    def add(self, patch: Patch, inner: Window, block: Block) -> None:
        """Add a block, without its halo."""
        rows = slice(inner[0][0] - patch.rows[0], inner[0][1] - patch.rows[0])
        cols = slice(inner[1][0] - patch.cols[0], inner[1][1] - patch.cols[0])
        intensity, known = patch.intensity[rows, cols], patch.valid[rows, cols]
        self.power_in += float(intensity.sum(dtype=np.float64))
        self.count_in += int(np.count_nonzero(known))
        values = block.amplitude[block.valid]
        self.count += values.size
        self.total += float(values.sum(dtype=np.float64))
        self.squares += float(np.square(values).sum(dtype=np.float64))
        if self.keep_values:
            self.values.append(values)
        if self.levels is not None:
            self.levels.add(values)
        if self.looks is not None:
            self.chips.extend(homogeneous_chips(intensity, known, self.looks))

    @property
    def gain(self) -> float:
        """Amplitude factor that gives the output the mean intensity of the input."""
        if self.squares == 0:
            return 1.0
        return math.sqrt(self.power_in / self.count_in * self.count / self.squares)

    @property
    def mu(self) -> float:
        return self.total / self.count

    @property
    def sigma(self) -> float:
        return math.sqrt(max(self.squares / self.count - self.mu**2, 0.0))


def _normalisation(
    tally: _Tally, gain: float, cfg: TileConfig, levels: LevelCounts | None
) -> Normalisation:
    mode, mu, sigma = cfg.normalisation, tally.mu * gain, tally.sigma * gain
    if mode == "percentile":
        top = float(np.percentile(np.concatenate(tally.values), cfg.percentile)) * gain
        return Normalisation(mode, mu, sigma, top)
    if mode == "db":
        low, top = _db_ends(tally, gain, cfg, levels)
        return Normalisation(mode, mu, sigma, top, low)
    if mode == "log":
        low, top = (math.exp(value) for value in cfg.log_range)
        return Normalisation(mode, mu, sigma, top, low)
    if mode == "log1p":
        low, top = (amplitude_of_log1p(value, cfg.log1p_gain) for value in cfg.log1p_range)
        return Normalisation(mode, mu, sigma, top, low, cfg.log1p_gain)
    return Normalisation(mode, mu, sigma, mu + 3 * sigma)


def _db_ends(
    tally: _Tally, gain: float, cfg: TileConfig, levels: LevelCounts | None
) -> tuple[float, float]:
    """Amplitudes of codes 0 and 255 of a dB window."""
    if chooses_window(cfg):
        # That of the scene alone; planning puts that of the archive in its place.
        low, top = (0.0, 0.0) if levels is None else map(amplitude_of_db, scene_window(levels))
        return low, top
    if cfg.db_window is not None:
        low, top = (amplitude_of_db(level) for level in cfg.db_window)
        return low, top
    values = np.concatenate(tally.values)
    lit = values[values > 0]
    if lit.size == 0:
        return 0.0, 0.0
    low, top = (float(np.percentile(lit, share)) * gain for share in (1.0, cfg.percentile))
    # A constant scene has a window of zero width; it is widened downwards.
    return (low if low < top else top / 2), top


def _looks_gained(frame: SceneFrame, tally: _Tally) -> float:
    """Factor by which averaging intensity raises the looks of this scene."""
    shape = frame.canonical_shape
    taps = [
        intensity_taps((0, max(n, 1)), ratio, 0, extent)
        for n, ratio, extent in zip(frame.shape, frame.ratio, shape, strict=True)
    ]
    lags = max(each.weight.shape[1] for each in taps) - 1
    correlation = speckle_correlation(tally.chips, lags)
    factors = [
        1.0 if ratio == 1 else looks_factor(each, rho)
        for each, rho, ratio in zip(taps, correlation, frame.ratio, strict=True)
    ]
    return math.prod(factors)
