"""The noise of a scene, predicted window by window, for a pipeline that sees the scene whole.

Pipeline and scheduler work on the latent of the whole scene, so that every scheduler works, those
that remember steps as well; only the network is called with windows.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sarhpc.generation.embeddings import TextEmbedding
from sarhpc.generation.scenes.windows import Size, Window, window_offset, windows_of


@dataclass(frozen=True)
class Regions:
    """Which prompt each latent pixel is predicted under."""

    labels: NDArray[np.uint8]
    """(h, w) of the scene: 0 is the prompt of the image, n that of `prompts[n - 1]`."""
    prompts: Sequence[TextEmbedding]


@dataclass(frozen=True)
class _Task:
    """One window to predict under one prompt, for one row of the pipeline's batch."""

    window: Window
    row: int
    label: int = 0
    mask: Tensor | None = None
    """Of the kept part, the pixels that take this prediction; None for all."""

    def put(self, prediction: Tensor, scene: Tensor) -> None:
        """Copy the prediction (C, h, w) of the window to its part of the scene (B, C, H, W)."""
        part = prediction[:, *self.window.kept_inside]
        place = scene[self.row][:, *self.window.kept]
        place.copy_(part if self.mask is None else torch.where(self.mask, part, place))


class WindowedNetwork:
    """The denoising network of a pipeline, called with windows of a scene.

    Args:
        pipeline: of one image at a time.
        side: rows and columns of a window, latent px.
        seed: of the image.
        batch: windows per call, padded, as another shape changes the bits.
        regions: prompts by latent pixel; None takes that of the image.
        go_on: called before each evaluation; may raise.
    """

    def __init__(
        self,
        pipeline: Any,
        side: Size,
        seed: int,
        batch: int,
        *,
        regions: Regions | None = None,
        go_on: Callable[[], None] = lambda: None,
    ) -> None:
        self._network, self._control = pipeline.unet, getattr(pipeline, "controlnet", None)
        self._predict = self._network.forward
        self._steer = None if self._control is None else self._control.forward
        self._reduction = pipeline.vae_scale_factor
        self._side, self._seed, self._batch, self._regions = side, seed, batch, regions
        self._go_on = go_on
        self._steering: dict[str, Any] = {}
        self.evaluations = 0
        """Calls by the pipeline so far."""
        self.offset: Size = (0, 0)
        """Of the last one."""

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Make the pipeline call this in place of its network inside the block."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(replaced_forward(self._network, self.predict))
            if self._control is not None:
                stack.enter_context(replaced_forward(self._control, self.note_steering))
            yield

    def note_steering(
        self,
        sample: Tensor,
        timestep: Any,
        encoder_hidden_states: Tensor,
        added_cond_kwargs: Any = None,
        **options: Any,
    ) -> tuple[list[Tensor], None]:
        """Keep what the ControlNet was called with: it is called with windows, as the network."""
        self._steering = options
        return [], None

    def predict(
        self,
        sample: Tensor,
        timestep: Any,
        encoder_hidden_states: Tensor,
        added_cond_kwargs: Mapping[str, Tensor] | None = None,
        down_block_additional_residuals: Any = None,
        mid_block_additional_residual: Any = None,
        **options: Any,
    ) -> tuple[Tensor]:
        """The prediction (B, C, H, W) of the scene; the last row is the one with the prompt."""
        self._go_on()
        self.offset = window_offset(self._seed, self.evaluations, self._side)
        self.evaluations += 1
        rows, _, *size = sample.shape
        tasks = self._tasks((size[0], size[1]), rows, sample.device)
        found = torch.empty_like(sample)
        step = self._batch * rows
        for first in range(0, len(tasks), step):
            part = tasks[first : first + step]
            padded = [*part, *part[-1:] * (step - len(part))]
            shared = self._texts(padded, encoder_hidden_states, added_cond_kwargs)
            cut = torch.stack([self._cut(sample, task, 1) for task in padded])
            steering = self._steered(cut, timestep, padded, shared)
            predicted = self._predict(cut, timestep, **shared, **steering, **options)[0]
            for task, values in zip(part, predicted, strict=False):
                task.put(values, found)
        return (found,)

    def _tasks(self, size: Size, rows: int, device: torch.device) -> list[_Task]:
        tasks: list[_Task] = []
        for window in windows_of(size, self._side, self.offset):
            tasks += [_Task(window, row) for row in range(rows - 1)]
            tasks += self._of_regions(window, rows - 1, device)
        return tasks

    def _of_regions(self, window: Window, row: int, device: torch.device) -> list[_Task]:
        """The window once under the prompt of each region that its kept part has."""
        if self._regions is None:
            return [_Task(window, row)]
        labels = self._regions.labels[window.kept]
        found = [int(label) for label in np.unique(labels)]
        if len(found) == 1:
            return [_Task(window, row, found[0])]
        return [
            _Task(window, row, label, torch.from_numpy(labels == label).to(device))
            for label in found
        ]

    def _cut(self, scene: Tensor, task: _Task, scale: int) -> Tensor:
        """The window (C, h, w) of a scene (B, C, H, W) of `scale` times the latent's size."""
        origin = task.window.rows.origin, task.window.columns.origin
        rows, columns = (
            slice(start * scale, (start + side) * scale)
            for start, side in zip(origin, self._side, strict=True)
        )
        return scene[task.row, :, rows, columns]

    def _texts(
        self, tasks: Sequence[_Task], hidden: Tensor, added: Mapping[str, Tensor] | None
    ) -> dict[str, Any]:
        """Arguments for text and sizes of the network, a row for each task."""
        prompts = [self._prompt(task) for task in tasks]
        texts: dict[str, Any] = {
            "encoder_hidden_states": torch.stack(
                [
                    hidden[task.row] if own is None else own.hidden.to(hidden)
                    for task, own in zip(tasks, prompts, strict=True)
                ]
            )
        }
        if added is not None:
            rows = {name: [values[task.row] for task in tasks] for name, values in added.items()}
            if "text_embeds" in rows:
                rows["text_embeds"] = [
                    row if own is None or own.pooled is None else own.pooled.to(row)
                    for row, own in zip(rows["text_embeds"], prompts, strict=True)
                ]
            if "time_ids" in rows:
                rows["time_ids"] = [self._size_ids(row) for row in rows["time_ids"]]
            texts["added_cond_kwargs"] = {name: torch.stack(row) for name, row in rows.items()}
        return texts

    def _prompt(self, task: _Task) -> TextEmbedding | None:
        if self._regions is None or task.label == 0:
            return None
        return self._regions.prompts[task.label - 1]

    def _size_ids(self, of_scene: Tensor) -> Tensor:
        """Original size, crop and target size of a tile: no tile had the size of the scene."""
        side = [latent * self._reduction for latent in self._side]
        return of_scene.new_tensor([*side, 0, 0, *side])

    def _steered(
        self, cut: Tensor, timestep: Any, tasks: Sequence[_Task], texts: Mapping[str, Any]
    ) -> dict[str, Any]:
        """What the ControlNet adds to the windows; nothing without one."""
        if self._steer is None:
            return {}
        layers = self._steering["controlnet_cond"]
        cuts = [
            torch.stack([self._cut(layer, task, self._reduction) for task in tasks])
            for layer in (layers if isinstance(layers, list) else [layers])
        ]
        cond = cuts if isinstance(layers, list) else cuts[0]
        options = {**self._steering, **texts, "controlnet_cond": cond}
        down, middle = self._steer(cut, timestep, **options)
        return {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}


@contextlib.contextmanager
def replaced_forward(module: nn.Module, forward: Any) -> Iterator[None]:
    """Call `forward` in place of that of the module inside the block; its hooks run as before."""
    before = module.__dict__.get("forward")
    module.forward = forward
    try:
        yield
    finally:
        if before is None:
            del module.forward
        else:
            module.forward = before
