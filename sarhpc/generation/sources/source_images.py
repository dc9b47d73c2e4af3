"""The images that a corpus begins with: by number, surveyed before anything is made."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hpc.errors import ConfigError, DataError, VerificationError
from sarhpc.generation.sources.checks import denoising_steps
from sarhpc.generation.sources.config import ImageToImageConfig
from sarhpc.generation.sources.found import FoundImage
from sarhpc.generation.sources.levels import levels_of, states_nothing
from sarhpc.shards.contract import PixelContract

if TYPE_CHECKING:
    from sarhpc.generation.config import GenerateConfig

log = logging.getLogger(__name__)

_NAMED = 5
"""Refused images that a message names."""


class FoundImages(Protocol):
    """Images by number, as they are found in shards or in a folder."""

    def __len__(self) -> int: ...

    def read(self, number: int) -> FoundImage:
        """Image `number`; raises DataError."""
        ...


@dataclass(frozen=True)
class SourceImage:
    """One image to begin with."""

    levels: NDArray[np.float32]
    """(H, W) in [0, 1], under the law of the model's pictures."""
    name: str
    """Path in its folder, or key of its sample."""
    sha256: str
    """Digest of the file or member that its pixels are from."""


@dataclass(frozen=True)
class Surveyed:
    """What was found of all images."""

    digests: tuple[str, ...]
    """Of each image, its name included."""
    unknown: int
    """How many do not say what their pixels mean."""

    def of(self, first: int, count: int) -> str:
        """Digest of the images that `count` images of a corpus from `first` on begin with."""
        used = (self.digests[number % len(self.digests)] for number in range(first, first + count))
        return _joined(used)


class SourceImages:
    """The images that a corpus begins with, used in turn."""

    def __init__(self, found: FoundImages, contract: PixelContract | None) -> None:
        """Read images under the model's contract.

        Raises:
            DataError: there are none.
        """
        self._found, self._contract = found, contract
        if len(found) == 0:
            raise DataError("no images to begin with: set generate.image_to_image.images")

    def __len__(self) -> int:
        return len(self._found)

    def load(self, number: int) -> SourceImage:
        """The image that image `number` of a corpus begins with.

        Raises:
            DataError: it cannot be read, or its pixels are not the model's.
        """
        return self._read(number % len(self))[0]

    def _read(self, number: int) -> tuple[SourceImage, Mapping[str, Any]]:
        found = self._found.read(number)
        try:
            levels, member = levels_of(found, self._contract)
        except DataError as error:
            raise DataError(f"{found.name}: {error}") from error
        digest = hashlib.sha256(found.members[member]).hexdigest()
        return SourceImage(levels, found.name, digest), found.meta

    def survey(self, size: tuple[int, int] | None) -> Surveyed:
        """Digests of all images, each of which was read: none is refused later.

        Args:
            size: rows and columns of the images to make; None: of all images alike.

        Raises:
            DataError: images cannot be read, or are of other pixels or another size; names them.
        """
        refused, digests, unknown = [], [], 0
        for number in range(len(self)):
            try:
                image, meta = self._read(number)
                size = size or (image.levels.shape[0], image.levels.shape[1])
                _require_size(image, size)
            except DataError as error:
                refused.append(str(error))
                continue
            digests.append(_identity(image))
            unknown += states_nothing(meta)
        if refused:
            raise DataError(
                f"{len(refused)} of {len(self)} images to begin with are refused, nothing was made:"
                f" {'; '.join(refused[:_NAMED])}" + (" ..." if len(refused) > _NAMED else "")
            )
        if unknown and self._contract is not None:
            log.warning(
                "%d of %d images to begin with do not say what their pixels mean (spacing, band, "
                "direction of range, normalisation): they are taken as the model's",
                unknown,
                len(self),
            )
        return Surveyed(tuple(digests), unknown)

    def require_planned(self, first: int, count: int, digest: str) -> None:
        """Raise VerificationError unless the images of a shard are those that were planned.

        Raises:
            VerificationError: one has changed, or there are others.
        """
        used = (_identity(self.load(number)) for number in range(first, first + count))
        try:
            same = _joined(used) == digest
        except DataError as error:
            raise VerificationError(f"{error}: it was readable when planned; restore it") from error
        if not same:
            raise VerificationError(
                "the images to begin with are not those that were planned: restore them, or make "
                "a new run of them"
            )

    def descriptions(self, prompts: Sequence[str]) -> list[str]:
        """A description for each image: `prompts` in turn, or the one beside each.

        There are as many as images, or as prompts if these are more.

        Raises:
            ConfigError: there are no prompts, and an image has no description.
        """
        count = max(len(self), len(prompts))
        if prompts:
            return [prompts[number % len(prompts)] for number in range(count)]
        return [self._description(number) for number in range(count)]

    def _description(self, number: int) -> str:
        found = self._found.read(number)
        if found.caption is None:
            raise ConfigError(
                f"{found.name} has no description beside it (.txt, caption in its metadata): set "
                "generate.prompts, or give each image one"
            )
        return found.caption


def require_sources(cfg: GenerateConfig, sources: SourceImages | None) -> None:
    """Raise ConfigError unless there are images to begin with exactly where they are asked for.

    Raises:
        ConfigError: they are asked for and missing, or given and not asked for.
    """
    if (cfg.image_to_image is None) is not (sources is None):
        raise ConfigError(
            f"{cfg.SECTION}.image_to_image is {'not set' if cfg.image_to_image is None else 'set'},"
            f" and there are {'no' if sources is None else len(sources)} images to begin with"
        )


def source_facts(image: SourceImage, cfg: ImageToImageConfig, steps: int) -> dict[str, Any]:
    """Metadata of an image about the one that it began with."""
    kept = {} if cfg.keep_mean_px is None else {"keep_mean_px": cfg.keep_mean_px}
    return {
        **kept,
        "image": image.name,
        "sha256": image.sha256,
        "strength": cfg.strength,
        "denoising_steps": denoising_steps(steps, cfg.strength),
    }


def _require_size(image: SourceImage, size: tuple[int, int]) -> None:
    if image.levels.shape != size:
        rows, columns = image.levels.shape
        raise DataError(
            f"{image.name} is {rows} x {columns} px, and images of {size[0]} x {size[1]} px are "
            "made: cut it (imported.px, imported.cut), it is never resampled; or set "
            "generate.height_px and generate.width_px"
        )


def _identity(image: SourceImage) -> str:
    return hashlib.sha256(f"{image.name} {image.sha256}".encode()).hexdigest()


def _joined(digests: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()
