"""The images of a layout: drawn once for each of its conditions, imaged once for each sensor."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sarhpc.generation.areas import area_facts
from sarhpc.generation.config import GenerateConfig
from sarhpc.generation.finishing import FinishedImage, SampledImage, Verdict
from sarhpc.generation.pixels import planned_contract
from sarhpc.generation.plan import ImageRequest
from sarhpc.generation.sweeps.checks import noise_reference, noise_unit, require_contract
from sarhpc.generation.sweeps.config import SensorConfig, SweepConfig
from sarhpc.generation.sweeps.reflectivity import FILTER, estimated_reflectivity
from sarhpc.generation.sweeps.sensor import Scene, sensor_images
from sarhpc.generation.sweeps.settings import Sensor, conditions_of, sensors_of
from sarhpc.shards.sample import Sample

Write = Callable[[int, ImageRequest, NDArray[np.float32], Mapping[str, Any]], Sample]
"""Sample of the image of this index in its shard."""
Draw = Callable[[Sequence[ImageRequest]], Sequence[SampledImage]]

LAYOUT, SWEEP = "layout", "sweep"
"""Entries of `meta.json`, and the first a column of the index."""


def layout_id(request: ImageRequest) -> str:
    """Name of a layout: 16 hex digits from its prompt with placeholders, and its seed."""
    identity = json.dumps([request.prompt, request.negative_prompt, request.seed]).encode()
    return hashlib.sha256(identity).hexdigest()[:16]


class Layouts:
    """Makes the images of the layouts of a shard; threads may call `finished` at the same time.

    Args:
        sweep: the settings.
        inputs: of the planned shard.
        cfg: how images are made.

    Raises:
        ConfigError: the contract of the model does not hold the settings.
    """

    def __init__(self, sweep: SweepConfig, inputs: Mapping[str, Any], cfg: GenerateConfig) -> None:
        self._contract = planned_contract(inputs)
        require_contract(cfg, self._contract, "The model has no contract.")
        self._conditions, self._sensors = conditions_of(sweep), sensors_of(sweep)
        self._sensor = sweep.sensor
        self._areas = {looks: _areas_of(inputs, cfg, looks) for looks in self._looks()}

    @property
    def images(self) -> int:
        """Images of each layout."""
        return len(self._conditions) * max(1, len(self._sensors))

    def _looks(self) -> set[int]:
        return {sensor.looks for sensor in self._sensors} or {1}

    def sampled(self, draw: Draw, batch: Sequence[ImageRequest]) -> list[SampledImage]:
        """The layouts of a batch, drawn once for each of their conditions with the same seed."""
        drawn = [
            draw([dataclasses.replace(r, prompt=conditions.prompt(r.prompt)) for r in batch])
            for conditions in self._conditions
        ]
        return [
            SampledImage(request, images[0].image, images[0].facts, tuple(images))
            for request, images in zip(batch, zip(*drawn, strict=True), strict=True)
        ]

    def finished(
        self, judge: Callable[[SampledImage], Verdict], write: Write, layout: SampledImage
    ) -> FinishedImage:
        """The layout with its images, or if one of those that the model drew is refused, that one.

        What is drawn in its place is the whole layout, of another seed.
        """
        request, first = layout.request, layout.request.index * self.images
        verdicts = [judge(image) for image in layout.conditions]
        judged = list(zip(layout.conditions, verdicts, strict=True))
        refused = next((pair for pair in judged if pair[1].reason is not None), None)
        image, verdict = refused or judged[0]
        finite = np.clip(np.nan_to_num(image.image), 0, 1)
        base = write(first, image.request, finite, {**image.facts, **verdict.facts})
        if refused is not None:
            again = verdict.again and dataclasses.replace(verdict.again, prompt=request.prompt)
            return FinishedImage(request, dataclasses.replace(verdict, again=again), base)
        samples = dict(self._samples(request, first, judged, write))
        return FinishedImage(request, verdict, base, tuple(samples[at] for at in sorted(samples)))

    def _samples(
        self,
        layout: ImageRequest,
        first: int,
        judged: Sequence[tuple[SampledImage, Verdict]],
        write: Write,
    ) -> Iterator[tuple[int, Sample]]:
        """Index and sample of each image, encoded as soon as it is made."""
        each = max(1, len(self._sensors))
        for number, (image, verdict) in enumerate(judged):
            stated = self._conditions[number].meta
            for place, pixels, facts, looks in self._imaged(image):
                index = first + number * each + place
                own = {
                    **image.facts,
                    **_of_first(verdict.facts, index == first),
                    **self._areas[looks](pixels),
                    **stated,
                    LAYOUT: layout_id(layout),
                    SWEEP: {**stated, **facts},
                }
                yield index, write(index, image.request, pixels, own)

    def _imaged(
        self, image: SampledImage
    ) -> Iterator[tuple[int, NDArray[np.float32], dict[str, Any], int]]:
        """Place among the settings, pixels, facts and looks of each setting."""
        if self._sensor is None:
            yield 0, image.image, {"speckle": "model"}, 1
            return
        assert self._contract is not None
        law, spacing = self._contract.law, self._contract.pixel_m
        assert law is not None
        assert spacing is not None
        levels = np.maximum(image.image.mean(axis=2), self._contract.level_floor or 0.0)
        intensity = law.amplitudes(levels).astype(np.float64) ** 2
        sensor, request = self._sensor, image.request
        ground = estimated_reflectivity(intensity, sensor.model_looks, sensor.window_px)
        scene = Scene(ground, spacing[0], request.seed, request.prompt)
        unit = noise_unit(self._contract)
        for setting, power in sensor_images(scene, self._sensors, sensor.sidelobe_db, unit):
            amplitude = np.sqrt(power).astype(np.float32)
            facts = self._facts(sensor, setting) | {"clipped": _share(amplitude > law.top)}
            gray = np.repeat(law.levels(amplitude)[:, :, None], 3, axis=2)
            yield self._sensors.index(setting), gray, facts, setting.looks

    def _facts(self, sensor: SensorConfig, setting: Sensor) -> dict[str, Any]:
        assert self._contract is not None
        return {
            "speckle": "drawn",
            "resolution_m": setting.resolution_m,
            "looks": setting.looks,
            "noise_db": setting.noise_db,
            "noise_reference": noise_reference(self._contract),
            "speckle_draw": setting.draw,
            "sidelobe_db": sensor.sidelobe_db,
            "filter": FILTER,
            "window_px": sensor.window_px,
            "model_looks": sensor.model_looks,
            "random": f"numpy-{version('numpy')} Philox",
        }


def _areas_of(
    inputs: Mapping[str, Any], cfg: GenerateConfig, looks: int
) -> Callable[[NDArray[np.float32]], dict[str, Any]]:
    """What images of so many looks say of their homogeneous areas."""
    wanted = cfg.homogeneous_areas
    if wanted is not None and cfg.sweep is not None and cfg.sweep.sensor is not None:
        wanted = dataclasses.replace(wanted, looks=float(looks))
    return area_facts(inputs, dataclasses.replace(cfg, homogeneous_areas=wanted))


def _of_first(facts: Mapping[str, Any], first: bool) -> Mapping[str, Any]:
    """Facts of a verdict; only the first image of a layout has a code to find duplicates by.

    The others repeat it, which is what they are for.
    """
    gate = facts.get("gate")
    if first or not isinstance(gate, Mapping):
        return facts
    return {**facts, "gate": {name: value for name, value in gate.items() if name != "code"}}


def _share(found: NDArray[np.bool_]) -> float:
    return float(f"{found.mean():.4g}")
