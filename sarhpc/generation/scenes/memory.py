"""What a scene takes of memory, and whether there is as much, before it is begun."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hpc.errors import ConfigError
from hpc.memory import node_memory_bytes
from sarhpc.generation.scenes.config import SceneConfig

GIB = 2**30
FLOAT_BYTES = 4
FINISHING_BYTES_PER_PX = 330
"""Of host memory: the picture as it is decoded, measured, judged and encoded, of two scenes."""
COPIES_OF_LAYER = 4
"""Tensors of the size of a decoder's largest layer that exist at the same time."""
MARGIN_PX = 256
"""Of a part, both margins of a decoder of eight pixels to a latent one."""


class SceneMemoryError(ConfigError):
    """A scene does not fit into memory: no other shard of its kind does."""


@dataclass(frozen=True)
class SceneMemory:
    """Bytes that a scene takes beside the model."""

    decoding: int
    """Where the model is."""
    finishing: int
    """Of the host."""

    @property
    def total(self) -> int:
        """Bytes where the model is on the host."""
        return self.decoding + self.finishing


def scene_memory(
    scene: SceneConfig, channels: Sequence[int], reduction: int, float_bytes: int = FLOAT_BYTES
) -> SceneMemory:
    """About what a scene takes.

    Args:
        scene: its size.
        channels: `block_out_channels` of the autoencoder.
        reduction: pixels to a latent pixel along each axis.
        float_bytes: of a number of the model.
    """
    pixels = scene.rows_px * scene.columns_px
    sides = [scene.rows_px, scene.columns_px]
    if max(sides) > scene.decode_px:
        sides = [min(side, scene.decode_px + MARGIN_PX) for side in sides]
    widest = channels[min(1, len(channels) - 1)]
    upper = COPIES_OF_LAYER * widest * sides[0] * sides[1] * float_bytes
    lower = COPIES_OF_LAYER * channels[-1] * pixels // reduction**2 * float_bytes
    return SceneMemory(upper + lower + 3 * pixels * float_bytes, FINISHING_BYTES_PER_PX * pixels)


def require_memory(
    scene: SceneConfig, needed: SceneMemory, at: str, device_bytes: int | None = None
) -> None:
    """Raise SceneMemoryError unless a scene fits into the memory of this process.

    Args:
        scene: its size.
        needed: what it takes.
        at: name of the setting, for messages.
        device_bytes: memory of the GPU that decodes; None where the host does.

    Raises:
        SceneMemoryError: the message has what is needed, what is there, and what to do.
    """
    host = node_memory_bytes()
    asked = [("", needed.total if device_bytes is None else needed.finishing, host)]
    if device_bytes is not None:
        asked.append((" of the GPU", needed.decoding, device_bytes))
    for where, wanted, there in asked:
        if wanted > there:
            raise SceneMemoryError(
                f"{at}: a scene of {scene.rows_px} x {scene.columns_px} px takes about "
                f"{wanted / GIB:.3g} GiB of memory{where} beside the model, and there are "
                f"{there / GIB:.3g} GiB: make it smaller, ask for more memory, or decode smaller "
                f"parts ({at}.decode_px, now {scene.decode_px})"
            )
