"""Whether an adapter fits a model, by the names and shapes in the headers of their files."""

from __future__ import annotations

import math
from pathlib import Path

from hpc.errors import DataError
from sarhpc.diffusion.adapter_files import (
    Place,
    is_original,
    model_modules,
    places,
    update_shape,
)
from sarhpc.diffusion.tensor_headers import Shape, tensor_shapes


def require_fit(file: Path, model: Path) -> None:
    """Raise DataError unless every module that the adapter changes is in the model, of its shape.

    diffusers itself only warns of what it does not find, and makes images without it.

    Args:
        file: the adapter.
        model: diffusers folder; a part whose weights are not there is not checked.

    Raises:
        DataError: the adapter is damaged or of another model; names module and shapes.
    """
    shapes = tensor_shapes(file)
    if not shapes:
        raise DataError(f"the adapter {file} is empty: copy or download it again.")
    modules: dict[str, dict[str, Shape]] = {}
    for place, roles in places(shapes, file).items():
        if is_original(place):
            continue
        if place.part not in modules:
            modules[place.part] = dict(model_modules(model, place.part))
        if (model / place.part).is_dir() and not modules[place.part]:
            continue
        own = modules[place.part].get(place.module)
        _require_same(place, own, {role: shapes[name] for role, name in roles.items()}, file, model)


def _require_same(
    place: Place, own: Shape | None, roles: dict[str, Shape], file: Path, model: Path
) -> None:
    change = update_shape(roles)
    if own is not None and change in (None, (own[0], math.prod(own[1:]))):
        return
    here = "a module that is not there"
    if own is not None and change is not None:
        here = f"{change[0]} x {change[1]} weights, where it has {own[0]} x {math.prod(own[1:])}"
    raise DataError(
        f"the adapter {file} does not fit {model}: it changes {place.part} {place.module}, {here}. "
        "Use one trained on it, or on a model of the same kind."
    )
