"""What ControlNets read in a run: layers of tiles or drawings, found, checked, and planned with."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpc.errors import ConfigError, DataError, VerificationError
from hpc.store.rundir import RunDir
from hpc.store.tree import digest_tree
from sarhpc.diffusion.config import LAYERS
from sarhpc.generation.config import GenerateConfig
from sarhpc.generation.controls.config import ControlInputConfig, SteerConfig
from sarhpc.stages.config import RunConfig
from sarhpc.stages.inputs.prompts import held_out_splits, sample_shards
from sarhpc.stages.work.sharded import manifest_sha

if TYPE_CHECKING:
    from sarhpc.generation.steering import LayerSource


def _controls(steer: SteerConfig) -> list[tuple[str, ControlInputConfig]]:
    """Each control with the setting that it stands in."""
    further = [(f"generate.steer.further[{n}]", each) for n, each in enumerate(steer.further)]
    return [("generate.steer", steer), *further]


def check_trained_layer(config: RunConfig) -> None:
    """Raise ConfigError unless the first control has a ControlNet, for the layer that it is given.

    Raises:
        ConfigError: the run trains none and none is named, or one for another layer.
    """
    steer = None if config.generate is None else config.generate.steer
    if steer is None or steer.model is not None:
        return
    trained = config.train.control
    if trained is None:
        raise ConfigError(
            "generate.steer without train.control: the model of the run will have no ControlNet; "
            "train one, or set generate.steer.model to an exported model that has one"
        )
    if trained.layer != steer.layer:
        raise ConfigError(
            f"generate.steer.layer={steer.layer} and train.control.layer={trained.layer}: a "
            "ControlNet reads the layer that it was trained on; make them the same"
        )


def check_control_inputs(config: RunConfig, size: tuple[int, int]) -> None:
    """Raise unless the shards, drawings and models of all controls are there and of use.

    Args:
        config: of the run.
        size: height and width of the images, as far as they are known, px.

    Raises:
        ConfigError: a folder is missing, or a drawing of another kind.
        DataError: a drawing is damaged, in colour, of another shape, or without lines; or a model
            has no ControlNet.
    """
    from sarhpc.generation.controls.drawn import check_drawings

    steer = None if config.generate is None else config.generate.steer
    for at, control in [] if steer is None else _controls(steer):
        if control.shards is not None and not _holds_shards(control.shards):
            raise ConfigError(
                f"{at}.shards={control.shards} is no folder with shards (.tar); name that of the "
                "shards whose layers steer"
            )
        try:
            check_drawings(control, size)
        except (ConfigError, DataError) as error:
            raise type(error)(f"{at}.sketch: {error}") from error
        if control.model is not None:
            _require_layer(at, control)


def _holds_shards(folder: str) -> bool:
    return bool(folder) and Path(folder).is_dir() and any(Path(folder).rglob("*.tar"))


def _require_layer(at: str, control: ControlInputConfig) -> None:
    from sarhpc.diffusion.control_facts import control_folder, read_control_facts

    try:
        folder = control_folder(str(control.model))
    except DataError as error:
        raise DataError(f"{at}.model: {error}") from error
    layer = read_control_facts(folder).layer
    if layer is not None and layer != control.layer:
        raise ConfigError(
            f"{at}.layer={control.layer}, and the ControlNet in {folder} was trained on `{layer}`: "
            "set that layer, or name another model"
        )


def planned_controls(run: RunDir, config: RunConfig) -> dict[str, Any]:
    """Digests of layers and ControlNets, and the members that images keep, for the plan."""
    steer = None if config.generate is None else config.generate.steer
    if steer is None:
        return {}
    facts: dict[str, Any] = {
        "layers_sha": _layers_sha(run, steer),
        "layer_member": LAYERS[steer.layer],
    }
    if steer.further:
        facts["further_layers_sha"] = [_layers_sha(run, control) for control in steer.further]
        facts["further_members"] = [LAYERS[control.layer] for control in steer.further]
    return facts | named_controlnets(steer)


def named_controlnets(steer: SteerConfig) -> dict[str, Any]:
    """Digests of the ControlNets that controls name, for the plan; nothing where none does."""
    models = [control.model for _, control in _controls(steer)]
    if all(model is None for model in models):
        return {}
    return {"control_sha": [None if model is None else _model_sha(model) for model in models]}


def _layers_sha(run: RunDir, control: ControlInputConfig) -> str:
    from sarhpc.generation.controls.drawn import drawings, drawings_sha

    if control.sketch is not None:
        return drawings_sha(drawings(control.sketch))
    if control.shards is not None:
        return digest_tree(Path(control.shards)).sha256
    return manifest_sha(run, "caption")


def _model_sha(model: str) -> str:
    from sarhpc.diffusion.control_facts import control_folder

    return digest_tree(control_folder(model)).sha256


def first_layers(run: RunDir, config: RunConfig) -> LayerSource | None:
    """The layers of the first control, if images are steered and not by a drawing.

    Raises:
        DataError: there are no tiles to steer by.
    """
    steer = None if config.generate is None else config.generate.steer
    if steer is None or steer.sketch is not None:
        return None
    return _of_tiles(steer, functools.partial(_held_out_shards, run, config))


def steering_layers(
    run: RunDir, config: RunConfig, cfg: GenerateConfig, size: tuple[int, int] | None
) -> LayerSource | None:
    """What steers the images of the corpus, if anything does.

    Args:
        run: whose held-out tiles they may be.
        config: of the run.
        cfg: how images are made.
        size: height and width of the images, px; only drawings need it.

    Raises:
        DataError: there are no tiles or drawings to steer by.
    """
    if cfg.steer is None:
        return None
    return layers_of(cfg.steer, size, functools.partial(_held_out_shards, run, config))


def layers_of(
    steer: SteerConfig, size: tuple[int, int] | None, own: Callable[[], list[Path]]
) -> LayerSource:
    """The layers of all controls.

    Args:
        steer: the controls.
        size: height and width of the images, px; only drawings need it.
        own: shards of a control that names neither shards nor drawings.

    Raises:
        DataError: there are no tiles or drawings to steer by.
    """
    from sarhpc.generation.controls.drawn import DrawnLayers, drawings
    from sarhpc.generation.controls.several import SeveralLayers, controls_of

    sources: list[LayerSource] = []
    for control in controls_of(steer):
        if control.sketch is None:
            sources.append(_of_tiles(control, own))
        elif size is None:
            raise DataError("the model does not say how large its images are: set height_px")
        else:
            sources.append(DrawnLayers(drawings(control.sketch), size))
    return sources[0] if len(sources) == 1 else SeveralLayers(sources)


def _of_tiles(control: ControlInputConfig, own: Callable[[], list[Path]]) -> LayerSource:
    from sarhpc.generation.steering import SteeringLayers

    named = control.shards
    return SteeringLayers(own() if named is None else sorted(Path(named).rglob("*.tar")), control)


def _held_out_shards(run: RunDir, config: RunConfig) -> list[Path]:
    return sample_shards(run, held_out_splits(run, config.evaluate.real_splits))


def require_planned_controls(cfg: GenerateConfig, inputs: Mapping[str, Any]) -> None:
    """Raise VerificationError unless drawings and ControlNets are those of the planned corpus.

    Raises:
        VerificationError: some changed since: further shards would be of other controls.
    """
    from sarhpc.generation.controls.drawn import drawings, drawings_sha

    if cfg.steer is None:
        return
    controls = _controls(cfg.steer)
    layers = [inputs.get("layers_sha"), *inputs.get("further_layers_sha", [])]
    models = inputs.get("control_sha") or [None] * len(controls)
    for (at, control), layer, model in zip(controls, layers, models, strict=True):
        changed = []
        if control.sketch is not None and drawings_sha(drawings(control.sketch)) != layer:
            changed.append(f"the drawings of {at}.sketch={control.sketch}")
        if control.model is not None and model not in (None, _model_sha(control.model)):
            changed.append(f"the ControlNet of {at}.model={control.model}")
        if changed:
            raise VerificationError(
                f"{' and '.join(changed)} changed since the corpus was planned: restore what was "
                "there, or start a new run"
            )


def control_notes(config: RunConfig, images: int | None) -> list[str]:
    """How often drawings are used, for the dry run."""
    from sarhpc.generation.controls.drawn import drawings

    steer = None if config.generate is None else config.generate.steer
    notes = []
    for at, control in [] if steer is None else _controls(steer):
        if control.sketch is None:
            continue
        count = len(drawings(control.sketch))
        used = "" if images is None else f" of {images} images, each {images / count:.3g} times"
        drawn = "1 drawing is the layer" if count == 1 else f"{count} drawings are the layers"
        notes.append(f"{at}: {drawn}{used}, in turn")
    return notes
