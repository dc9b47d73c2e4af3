"""Decoding a scene in parts, with the result of decoding it whole.

Two things make a part depend on the rest of the scene. Convolutions reach a few latent pixels
beyond it: parts are decoded with a margin of that reach, which is cut off. Group normalisation
takes mean and variance over the whole: they are measured part by part, layer after layer, and then
applied in every part. The first layers, which may attend to the whole scene, work at the size of
the latent, and are evaluated once.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hpc.errors import DataError
from sarhpc.generation.scenes.denoising import replaced_forward


@contextlib.contextmanager
def decoding_in_parts(pipeline: Any, side_px: int) -> Iterator[None]:
    """Make the pipeline decode scenes with a side beyond `side_px` in parts, inside the block.

    Raises:
        DataError: the decoder has a layer that parts cannot be given.
    """
    decoder = pipeline.vae.decoder
    whole, side = decoder.forward, side_px // pipeline.vae_scale_factor

    def decode(latent: Tensor, *_: Any) -> Tensor:
        """The picture (1, 3, H, W) of a latent."""
        if max(latent.shape[-2:]) <= side:
            return whole(latent)
        return decoded_in_parts(decoder, latent, side)

    with replaced_forward(decoder, decode):
        yield


def decoded_in_parts(decoder: Any, latent: Tensor, side: int) -> Tensor:
    """The picture (1, C, H, W) of a latent (1, c, h, w), from parts of `side` latent px.

    It equals that of the decoder up to the rounding of floats.

    Raises:
        DataError: the decoder has a layer that parts cannot be given.
    """
    layers = _UpperLayers(decoder)
    inner = decoder.mid_block(decoder.conv_in(latent), None)
    parts = list(_parts(inner.shape[-2:], side, layers.reach))
    with layers.with_shared_statistics() as norms:
        for norm in norms:
            for part in parts:
                norm.measure(lambda part=part: layers.run(part.cut(inner)), part)  # type: ignore[misc]
            norm.settle()
        picture: Tensor | None = None
        for part in parts:
            made = layers.run(part.cut(inner))
            scale = made.shape[-1] // part.width
            if picture is None:
                size = [length * scale for length in inner.shape[-2:]]
                picture = made.new_empty((*made.shape[:2], *size))
            rows, columns = part.kept
            picture[:, :, _scaled(rows, scale), _scaled(columns, scale)] = part.middle(made)
    assert picture is not None
    return picture


@dataclass(frozen=True)
class _Part:
    """A part of a latent: where it lies with its margin, and without."""

    rows: slice
    columns: slice
    kept: tuple[slice, slice]

    @property
    def width(self) -> int:
        return self.columns.stop - self.columns.start

    def cut(self, latent: Tensor) -> Tensor:
        """The part of the latent, with its margin."""
        return latent[:, :, self.rows, self.columns]

    def middle(self, decoded: Tensor) -> Tensor:
        """What was decoded from `cut`, at any scale, without its margin."""
        scale = decoded.shape[-1] // self.width
        rows, columns = (
            slice((kept.start - whole.start) * scale, (kept.stop - whole.start) * scale)
            for kept, whole in zip(self.kept, (self.rows, self.columns), strict=True)
        )
        return decoded[:, :, rows, columns]


def _parts(size: torch.Size, side: int, margin: int) -> Iterator[_Part]:
    for rows in _cut_at(size[0], side):
        for columns in _cut_at(size[1], side):
            wide = [
                slice(max(kept.start - margin, 0), min(kept.stop + margin, length))
                for kept, length in zip((rows, columns), size, strict=True)
            ]
            yield _Part(wide[0], wide[1], (rows, columns))


def _cut_at(length: int, side: int) -> list[slice]:
    return [slice(start, min(start + side, length)) for start in range(0, length, side)]


def _scaled(part: slice, scale: int) -> slice:
    return slice(part.start * scale, part.stop * scale)


class _Measured(Exception):  # noqa: N818 - no error: it ends a part whose rest is not needed
    """The layer whose input is wanted was reached."""


class _SharedNorm:
    """A group normalisation whose statistics are those of all parts together."""

    def __init__(self, module: nn.GroupNorm) -> None:
        self.module = module
        self._part: _Part | None = None
        self._count, self._mean, self._deviations = 0, torch.zeros(1), torch.zeros(1)
        self._settled: tuple[Tensor, Tensor] | None = None

    def forward(self, values: Tensor) -> Tensor:
        """The values normalised; while it is measured, their part of the statistics."""
        if self._part is not None:
            self._add(self._part.middle(values))
            raise _Measured
        assert self._settled is not None, "layers are measured in the order in which they are run"
        scale, shift = (each.to(values).view(1, -1, 1, 1) for each in self._settled)
        return values * scale + shift

    def measure(self, run: Callable[[], Tensor], part: _Part) -> None:
        """Run the layers up to this one on a part, and add what it sees."""
        self._part = part
        try:
            run()
        except _Measured:
            return
        finally:
            self._part = None
        raise DataError("the decoder of this model has a normalisation that it does not use")

    def _add(self, values: Tensor) -> None:
        """Chan's update of mean and sum of squared deviations, in double precision."""
        grouped = values.float().reshape(self.module.num_groups, -1)
        variance, mean = torch.var_mean(grouped, dim=1, correction=0)
        mean, variance, count = mean.double(), variance.double(), grouped.shape[1]
        total = self._count + count
        before = self._mean.to(mean)
        change = mean - before
        self._deviations = (
            self._deviations.to(mean) + variance * count + change**2 * (self._count * count / total)
        )
        self._mean, self._count = before + change * (count / total), total

    def settle(self) -> None:
        """Take what was measured: factor and summand of each channel."""
        module = self.module
        inverse = (self._deviations / self._count + module.eps).rsqrt()
        members = module.num_channels // module.num_groups
        scale, mean = (each.repeat_interleave(members) for each in (inverse, self._mean))
        if module.weight is not None:
            scale = scale * module.weight.double()
        shift = -mean * scale
        if module.bias is not None:
            shift = shift + module.bias.double()
        self._settled = scale, shift


class _UpperLayers:
    """The layers of a decoder after its middle block, which see some latent pixels around each."""

    def __init__(self, decoder: Any) -> None:
        self._decoder = decoder
        self._modules = nn.ModuleList([*decoder.up_blocks, decoder.conv_norm_out])
        foreign = {
            type(module).__name__
            for module in self._modules.modules()
            if "Attention" in type(module).__name__ or "SpatialNorm" in type(module).__name__
        }
        if foreign:
            raise DataError(
                f"the decoder of this model has {', '.join(sorted(foreign))} where it enlarges, "
                "which needs the whole scene: set generate.scene.decode_px to its longest side"
            )
        self.reach = self._reach()

    def run(self, inner: Tensor) -> Tensor:
        """The picture of a part."""
        decoder = self._decoder
        for block in decoder.up_blocks:
            inner = block(inner, None)
        return decoder.conv_out(decoder.conv_act(decoder.conv_norm_out(inner)))

    @contextlib.contextmanager
    def with_shared_statistics(self) -> Iterator[list[_SharedNorm]]:
        """Replace the normalisations inside the block; yields them in the order of the layers."""
        norms = [_SharedNorm(m) for m in self._modules.modules() if isinstance(m, nn.GroupNorm)]
        with contextlib.ExitStack() as stack:
            for norm in norms:
                stack.enter_context(replaced_forward(norm.module, norm.forward))
            yield norms

    def _reach(self) -> int:
        """Latent pixels to each side that a pixel of the picture depends on."""
        reach, scale = 0.0, 1.0
        for block in self._decoder.up_blocks:
            reach += _convolved(block.resnets) / scale
            if block.upsamplers is not None:
                scale *= 2
                reach += _convolved(block.upsamplers) / scale
        return math.ceil(reach + _convolved(self._decoder.conv_out) / scale)


def _convolved(module: nn.Module) -> int:
    """Pixels to each side that the convolutions of a module reach, one after the other."""
    return sum(
        module.kernel_size[0] // 2 for module in module.modules() if isinstance(module, nn.Conv2d)
    )
