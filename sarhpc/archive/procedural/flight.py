"""Flight lines: ground, heading, date and position of each scene.

Every line has a square block of its own on a regular grid in Lambert-93, wide enough for any
heading, so scenes of different lines never overlap, unless the line flies an older one again.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from hpc.errors import ConfigError
from sarhpc.archive.procedural.config import SCENE_KINDS, ProceduralConfig
from sarhpc.imaging.streams import stream

CRS = "EPSG:2154"
ORIGIN_M = (560_000.0, 6_230_000.0)
"""South-west corner of the area of simulated flights: invented positions in southern France."""
AREA_M = 240_000.0
_ID = re.compile(r"^proc(?P<seed>\d+)-l(?P<line>\d{4})-s(?P<position>\d{3})$")
_GOLDEN = (math.sqrt(5) - 1) / 2

Affine = tuple[float, float, float, float, float, float]


@dataclass(frozen=True)
class Pass:
    """One scene's acquisition."""

    scene_id: str
    ground_id: str
    """Id of the ground imaged; differs from the scene's own id when a line is repeated."""
    kind: str
    line: str
    heading_deg: float
    """Flight direction clockwise from grid north; rows of the image run against it."""
    incidence_deg: float
    acquired: datetime
    photographed: datetime
    affine: Affine
    """Image to EPSG:2154: x = a col + b row + c, y = d col + e row + f."""


def check(cfg: ProceduralConfig) -> None:
    """Raise ConfigError unless scenes can be simulated with the settings.

    Raises:
        ConfigError: a setting is out of its range; the message names it.
    """
    ranges = {
        "size_px": (32, 32768),
        "pixel_m": (0.05, 20.0),
        "scenes_per_line": (1, 1000),
        "incidence_deg": (20.0, 70.0),
        "incidence_spread_deg": (0.0, 10.0),
        "altitude_m": (500.0, 1e6),
        "looks": (1, 64),
        "band_fraction": (0.1, 1.0),
        "sidelobe_db": (15.0, 60.0),
        "relief_m": (0.0, 8.0),
        "reflown_fraction": (0.0, 1.0),
        "radiometry": (1, 2),
    }
    for name, (low, high) in ranges.items():
        value = getattr(cfg, name)
        if not low <= value <= high:
            raise ConfigError(
                f"{name}={value} of the procedural archive: must be between {low} and {high}"
            )


def scene_ids(cfg: ProceduralConfig) -> list[str]:
    """Ids of every scene of the archive, flight line by flight line."""
    per_line = cfg.scenes_per_line
    return [_scene_id(cfg.seed, n // per_line, n % per_line) for n in range(cfg.scenes)]


def _scene_id(seed: int, line: int, position: int) -> str:
    return f"proc{seed}-l{line:04d}-s{position:03d}"


def acquisition(cfg: ProceduralConfig, scene_id: str) -> Pass:
    """Acquisition of one scene, from its id and the configuration alone.

    Raises:
        ConfigError: the id does not belong to this archive, or a setting is out of range.
    """
    check(cfg)
    match = _ID.match(scene_id)
    if match is None or int(match["seed"]) != cfg.seed:
        raise ConfigError(
            f"scene {scene_id} does not belong to the procedural archive with seed {cfg.seed}: "
            f"its ids look like {_scene_id(cfg.seed, 0, 0)}"
        )
    line, position = int(match["line"]), int(match["position"])
    ground_line = _ground_line(cfg, line)
    ground_id = _scene_id(cfg.seed, ground_line, position)
    course = stream(cfg.seed, f"line{ground_line}", "course")
    heading = float(course.uniform(0, 360))
    flown = stream(cfg.seed, f"line{line}", "day")
    spread = cfg.incidence_spread_deg
    acquired = datetime(2023, 5, 1, 8, tzinfo=UTC) + timedelta(
        days=int(flown.integers(0, 120)), seconds=int(flown.integers(0, 20_000)) + 12 * position
    )
    days = int(flown.integers(-20, 21))
    noon = acquired.replace(hour=10, minute=30, second=0) + timedelta(days=days)
    return Pass(
        scene_id,
        ground_id,
        _kind(cfg, ground_line * cfg.scenes_per_line + position),
        f"{cfg.seed}-{line:04d}",
        heading,
        cfg.incidence_deg + float(flown.uniform(-spread, spread)),
        acquired,
        noon,
        _affine(cfg, ground_line, position, heading),
    )


def _ground_line(cfg: ProceduralConfig, line: int) -> int:
    """The line whose ground `line` images: itself, or the previous one that it repeats."""
    while line > 0:
        again = stream(cfg.seed, f"line{line}", "again").random() < cfg.reflown_fraction
        if not again:
            return line
        line -= 1
    return line


def _kind(cfg: ProceduralConfig, number: int) -> str:
    """Kind of the n-th ground: steps of the golden ratio spread kinds evenly at any count."""
    weights = [float(getattr(cfg.scene_kinds, kind)) for kind in SCENE_KINDS]
    if min(weights) < 0 or sum(weights) <= 0:
        raise ConfigError(
            f"scene_kinds {cfg.scene_kinds}: weights must not be negative nor all zero"
        )
    point = (stream(cfg.seed, "archive", "kinds").random() + number * _GOLDEN) % 1.0
    point *= sum(weights)
    for kind, weight in zip(SCENE_KINDS, weights, strict=True):
        point -= weight
        if point < 0:
            return kind
    return SCENE_KINDS[-1]


def _affine(cfg: ProceduralConfig, line: int, position: int, heading_deg: float) -> Affine:
    """Rotated affine: columns to the right of the heading (where the antenna looks), rows against.

    So the aircraft flies up the left side of the image, which is not mirrored.
    """
    side = cfg.size_px * cfg.pixel_m
    pitch = side * 1.05
    block = math.ceil((cfg.scenes_per_line * pitch + side) * 1.1 / 100) * 100
    across = max(1, int(AREA_M // block))
    centre = (
        ORIGIN_M[0] + (line % across + 0.5) * block,
        ORIGIN_M[1] + (line // across % across + 0.5) * block,
    )
    turn = math.radians(heading_deg)
    forward = math.sin(turn), math.cos(turn)
    right = math.cos(turn), -math.sin(turn)
    along = (position - cfg.scenes_per_line / 2) * pitch
    corner = [centre[a] + (along + side) * forward[a] - side / 2 * right[a] for a in (0, 1)]
    p = cfg.pixel_m
    return (right[0] * p, -forward[0] * p, corner[0], right[1] * p, -forward[1] * p, corner[1])
