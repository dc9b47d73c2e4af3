"""Flight lines: scenes that go to one split together, and scenes that image the same ground."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from sarhpc.archive.scene import Scene
from sarhpc.tiling.config import SplitConfig

Box = tuple[float, float, float, float]

_METRES_PER_DEGREE = 111_320.0


def flight_line_of(scene: Scene, cfg: SplitConfig) -> str:
    """Name of the flight line a scene was taken on; its own id where none is known."""
    line = scene.properties.get(cfg.line_property)
    return f"scene:{scene.id}" if line is None else f"line:{line}"


def line_groups(scenes: Iterable[Scene], cfg: SplitConfig, buffer_m: float) -> dict[str, str]:
    """Group of each scene id: scenes of one flight line and all that come near them are one group.

    Bounding boxes of the items are compared, which never misses common ground. The name
    of a group is that of its first line in alphabetical order, so that it does not depend on the
    order of the scenes; a new scene may join groups, and then moves the tiles of one of them.
    """
    listed = sorted(scenes, key=lambda scene: scene.id)
    parent = {flight_line_of(scene, cfg): flight_line_of(scene, cfg) for scene in listed}
    lines = [flight_line_of(scene, cfg) for scene in listed]
    # Two scenes that each keep their buffer are a whole tile diagonal apart.
    for one, other in _near_boxes([_grown(scene.bbox, buffer_m) for scene in listed]):
        first, second = sorted((_root(parent, lines[one]), _root(parent, lines[other])))
        parent[second] = first
    return {scene.id: _root(parent, line) for scene, line in zip(listed, lines, strict=True)}


def reflown(scenes: Iterable[Scene]) -> list[tuple[str, str]]:
    """Pairs of scene ids, sorted, whose bounding boxes share ground."""
    listed = sorted(scenes, key=lambda scene: scene.id)
    pairs = _near_boxes([_grown(scene.bbox, 0.0) for scene in listed])
    return sorted((listed[one].id, listed[other].id) for one, other in pairs)


def overlapping_scenes(scenes: Iterable[Scene], others: Iterable[Scene]) -> dict[str, list[Scene]]:
    """Id of each scene -> those of `others`, except itself, whose bounding box overlaps, by id."""
    asked, offered = ({scene.id: scene for scene in each} for each in (scenes, others))
    listed = sorted((offered | asked).values(), key=lambda scene: scene.id)
    found: dict[str, list[Scene]] = {name: [] for name in asked}
    for one, other in _near_boxes([_grown(scene.bbox, 0.0) for scene in listed]):
        for name, met in ((one, other), (other, one)):
            if listed[name].id in asked and listed[met].id in offered:
                found[listed[name].id].append(listed[met])
    return {name: sorted(met, key=lambda scene: scene.id) for name, met in found.items()}


def _root(parent: dict[str, str], line: str) -> str:
    while parent[line] != line:
        parent[line] = parent[parent[line]]
        line = parent[line]
    return line


def _grown(bbox: Box | None, buffer_m: float) -> Box | None:
    if bbox is None:
        return None
    west, south, east, north = bbox
    pad = buffer_m / _METRES_PER_DEGREE
    shrink = max(math.cos(math.radians(max(abs(south), abs(north)) + pad)), 1e-3)
    return west - pad / shrink, south - pad, east + pad / shrink, north + pad


def _near_boxes(boxes: Sequence[Box | None]) -> Iterator[tuple[int, int]]:
    """Indices of boxes that share a point, each pair once; by cells of one degree."""
    cells: dict[tuple[int, int], list[int]] = defaultdict(list)
    for index, box in enumerate(boxes):
        if box is not None:
            for cell in _degrees(box):
                cells[cell].append(index)
    met = set()
    for members in cells.values():
        for place, one in enumerate(members):
            for other in members[place + 1 :]:
                if (one, other) not in met and _meet(boxes[one], boxes[other]):
                    met.add((one, other))
                    yield one, other


def _degrees(box: Box) -> Iterator[tuple[int, int]]:
    west, south, east, north = box
    east = east if east >= west else east + 360
    for row in range(math.floor(south), math.floor(north) + 1):
        for col in range(math.floor(west), math.floor(east) + 1):
            yield row, (col + 180) % 360


def _meet(one: Box | None, other: Box | None) -> bool:
    if one is None or other is None or one[1] > other[3] or other[1] > one[3]:
        return False
    first = one[2] if one[2] >= one[0] else one[2] + 360
    second = other[2] if other[2] >= other[0] else other[2] + 360
    return any(
        one[0] <= second + turn and other[0] + turn <= first for turn in (-360.0, 0.0, 360.0)
    )
