"""Whether models can be sampled as configured: sampler, schedule, steps and adapters.

Only headers and configurations are read, so that a submission asks this in milliseconds.
"""

from __future__ import annotations

from pathlib import Path

from hpc.errors import ConfigError
from hpc.store.rundir import RunDir
from sarhpc.generation.config import GenerateConfig
from sarhpc.stages.config import RunConfig
from sarhpc.stages.inputs.paths import model_folder


def check_sampled(run: RunDir, config: RunConfig) -> None:
    """Raise if the model that the run trains could not be sampled as `generate` says.

    Read from its base model, whose shapes and betas it keeps. What is planned already goes on.

    Raises:
        ConfigError: a sampler, schedule or number of steps is not for it.
        DataError: an adapter is missing, damaged or of another model.
    """
    from sarhpc.generation.adapters.chosen import named_adapters
    from sarhpc.generation.adapters.fitting import require_fit
    from sarhpc.generation.schedules import check_model_schedule

    if config.generate is None or run.plan_file("generate").exists():
        return
    named = named_adapters(config.generate)
    base = existing_folder(config.train.base_model)
    if base is None:
        return
    rescaled = config.train.zero_terminal_snr
    check_model_schedule(base, config.generate, zero_terminal_snr=rescaled)
    for adapter in named:
        require_fit(adapter.file, base)


def require_sampled(folder: Path, cfg: GenerateConfig) -> None:
    """Raise unless the model in `folder` can be sampled as `cfg` says, with its adapters.

    Raises:
        ConfigError: a sampler, schedule or number of steps is not for it.
        DataError: an adapter is missing, damaged or of another model.
    """
    from sarhpc.generation.adapters.chosen import chosen_adapters
    from sarhpc.generation.adapters.fitting import require_fit
    from sarhpc.generation.schedules import check_model_schedule

    check_model_schedule(folder, cfg)
    for adapter in chosen_adapters(folder, cfg):
        require_fit(adapter.file, folder)


def existing_folder(name: str) -> Path | None:
    """The folder of a model; None if it is not there, which is asked of all models elsewhere."""
    try:
        folder = Path(model_folder(name))
    except ConfigError:
        return None
    return folder if folder.is_dir() else None
