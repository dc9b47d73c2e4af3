"""Models for the drives: loaded in plain torch, then moved to the pretended GPU by the project."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import _disable_current_modes

from sarhpc.diffusion.bundle import Bundle

_work: list[Path] = []


def work_folder(folder: Path | None = None) -> Path:
    """The folder of the drives; set by its argument."""
    if folder is not None:
        _work[:] = [folder]
    return _work[0]


@functools.cache
def bundle(*, xl: bool) -> Path:
    """A tiny SD 1.5 or SDXL."""
    from tiny_bundle import make_bundle

    return _outside(make_bundle)(work_folder() / ("xl" if xl else "sd"), xl=xl)  # type: ignore[no-any-return]


def load_outside() -> None:
    """Let the libraries read files without the pretence, which their buffers do not follow."""
    import diffusers

    import sarhpc.captioning.captioners.blip as blip
    import sarhpc.captioning.captioners.clip as clip
    import sarhpc.captioning.captioners.git as git
    import sarhpc.training.denoising.start as start
    import sarhpc.training.denoising.task as task
    import sarhpc.training.denoising.validation as validation

    for module in (blip, clip, git):
        module.load_parts = _outside(module.load_parts)
    load_base = _outside(start.load_base)
    for module in (start, task, validation):
        module.load_base = load_base
    for name in dir(diffusers):
        if name.startswith("StableDiffusion") and name.endswith("Pipeline"):
            kind = getattr(diffusers, name)
            if "from_pretrained" in dir(kind):
                kind.from_pretrained = _outside(kind.from_pretrained)


def _outside(load: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(load)
    def loaded(*args: Any, **named: Any) -> Any:
        """What `load` returns, as on a machine without a GPU."""
        available = torch.cuda.is_available
        torch.cuda.is_available = lambda: False  # type: ignore[assignment]
        torch.__future__.set_swap_module_params_on_conversion(False)
        try:
            with _disable_current_modes():
                found = load(*args, **named)
                for module in _modules(found):
                    _refill_positions(module)
        finally:
            torch.cuda.is_available = available
            torch.__future__.set_swap_module_params_on_conversion(True)
        return found

    return loaded


def _modules(found: Any) -> Iterator[torch.nn.Module]:
    """Modules of a model, of a pipeline or bundle, or of several of them."""
    if isinstance(found, torch.nn.Module):
        yield from found.modules()
    elif isinstance(found, tuple):
        for part in found:
            yield from _modules(part)
    elif isinstance(parts := getattr(found, "components", None), dict):
        yield from _modules(tuple(parts.values()))
    elif isinstance(found, Bundle):
        yield from _modules(tuple(vars(found).values()))


def _refill_positions(module: torch.nn.Module) -> None:
    """An artefact of the pretence: transformers fills `position_ids` with other numbers."""
    ids = getattr(module, "position_ids", None)
    if isinstance(ids, torch.Tensor):
        module.position_ids = torch.arange(ids.shape[-1]).expand(ids.shape).clone()
