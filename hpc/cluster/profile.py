"""A profile: what one cluster wants to hear, so that no site name stands in the code.

A profile is a YAML file in `slurm/profiles/`. It is read with a strict schema and turned into the
parameters of a submission; every word that reaches a shell is quoted here.
"""

from __future__ import annotations

import difflib
import re
import shlex
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from hpc.errors import ConfigError

EXECUTORS = ("slurm", "local", "debug")
REQUEUE_MODES = ("scontrol", "chain", "none")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class Resources:
    """What one job asks for."""

    nodes: int = 1
    """Machines."""
    tasks_per_node: int = 1
    """Processes on each machine; one per GPU for training."""
    cpus_per_task: int = 1
    """CPU cores of each process."""
    gpus_per_node: int = 0
    """GPUs on each machine."""
    mem_gb: float = 4.0
    """Memory of each machine in GB."""
    time_min: int = 60
    """Walltime in minutes."""

    def __post_init__(self) -> None:
        for name in ("nodes", "tasks_per_node", "cpus_per_task", "mem_gb", "time_min"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"resources: {name}={getattr(self, name)} must be above 0")
        if self.gpus_per_node < 0:
            raise ConfigError(f"resources: gpus_per_node={self.gpus_per_node} must not be negative")

    @property
    def tasks(self) -> int:
        """Processes on all machines together."""
        return self.nodes * self.tasks_per_node


@dataclass(frozen=True)
class Profile:
    """One cluster: where jobs go, what they find there and how they come back."""

    name: str = "local"
    """Name of the cluster, as in `--profile`."""
    executor: str = "local"
    """Who runs the job: `slurm`, `local` (processes on this machine) or `debug` (in-process)."""
    partition: str | None = None
    """Slurm partition for jobs without GPUs, and for all if `gpu_partition` is not set."""
    gpu_partition: str | None = None
    """Slurm partition for jobs with GPUs."""
    account: str | None = None
    """Account that pays."""
    qos: str | None = None
    """Quality of service."""
    constraint: str | None = None
    """Node features, such as `a100&nvme`."""
    gpu_syntax: str = "gpus-per-node"
    """How GPUs are asked for: `gpus-per-node` or `gres`."""
    gpu_type: str | None = None
    """Type of GPU in that request, such as `a100`."""
    modules: list[str] = field(default_factory=list)
    """Environment modules to load before the job starts."""
    env: dict[str, str] = field(default_factory=dict)
    """Environment variables of the job; taken literally, `${oc.env:X}` is read at submission."""
    max_array: int = 1000
    """Most elements of one job array."""
    requeue: str = "scontrol"
    """How a preempted job comes back: `scontrol` (requeue itself), `chain` (a waiting successor)
    or `none`."""
    grace_s: int = 300
    """Seconds between SIGUSR2 and the time limit: at least twice a step and a save."""
    resources: Resources = field(default_factory=Resources)
    """What a stage asks for that is not named in `stages`."""
    stages: dict[str, Resources] = field(default_factory=dict)
    """What each stage asks for."""

    def __post_init__(self) -> None:
        _require(self.name, "executor", self.executor, EXECUTORS)
        _require(self.name, "requeue", self.requeue, REQUEUE_MODES)
        _require(self.name, "gpu_syntax", self.gpu_syntax, ("gpus-per-node", "gres"))
        for variable in self.env:
            if not _VARIABLE.fullmatch(variable):
                raise ConfigError(f"profile {self.name}: env name {variable!r} is no variable name")

    def resources_of(self, stage: str) -> Resources:
        """What `stage` asks for on this cluster."""
        return self.stages.get(stage, self.resources)

    def setup_lines(self) -> list[str]:
        """Shell lines to run before the job, every word quoted."""
        lines = [f"module load {shlex.quote(module)}" for module in self.modules]
        return lines + [f"export {name}={shlex.quote(text)}" for name, text in self.env.items()]

    def slurm_parameters(self, resources: Resources) -> dict[str, Any]:
        """What Slurm is told beyond the resources themselves, by sbatch option name."""
        partition = self.gpu_partition if resources.gpus_per_node else None
        options: dict[str, Any] = {
            "partition": partition or self.partition,
            "account": self.account,
            "qos": self.qos,
            "constraint": self.constraint,
            "signal_delay_s": self.grace_s,
            "setup": self.setup_lines() or None,
        }
        gpus = self._gpu_request(resources.gpus_per_node)
        requeue = {"requeue": True} if self.requeue == "scontrol" else {"no-requeue": True}
        options["additional_parameters"] = {**requeue, **gpus}
        return {name: option for name, option in options.items() if option is not None}

    def _gpu_request(self, gpus: int) -> dict[str, str]:
        if gpus == 0:
            return {}
        typed = f"{self.gpu_type}:{gpus}" if self.gpu_type else str(gpus)
        return {"gres": f"gpu:{typed}"} if self.gpu_syntax == "gres" else {"gpus-per-node": typed}


def load_profile(name_or_path: str | Path, folders: list[Path] | None = None) -> Profile:
    """The profile of that name, or in that YAML file.

    Args:
        name_or_path: a name such as `a100`, or a path ending in `.yaml`.
        folders: where names are looked up; by default `slurm/profiles` in the working directory
            and beside this package.

    Raises:
        ConfigError: no such profile, an unknown key (with the nearest names) or a bad value.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    path = _find(name_or_path, _profile_folders() if folders is None else folders)
    schema = OmegaConf.structured(Profile)
    # Frozen dataclasses make the schema read-only; the values are frozen again by to_object.
    OmegaConf.set_readonly(schema, False)
    try:
        loaded = OmegaConf.load(path)
        _check_keys(path, loaded)
        merged = OmegaConf.merge(schema, {"name": path.stem}, loaded)
        profile = OmegaConf.to_object(merged)
    except (OmegaConfBaseException, YAMLError) as error:
        raise ConfigError(f"profile {path}: {' '.join(str(error).split())}") from error
    assert isinstance(profile, Profile)
    return profile


def _profile_folders() -> list[Path]:
    beside = Path(__file__).resolve().parents[2] / "slurm" / "profiles"
    return [Path.cwd() / "slurm" / "profiles", beside]


def _find(name_or_path: str | Path, folders: list[Path]) -> Path:
    given = Path(name_or_path)
    if given.suffix in (".yaml", ".yml"):
        candidates = [given]
    else:
        candidates = [folder / f"{name_or_path}.yaml" for folder in folders]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    known = sorted({path.stem for folder in folders for path in folder.glob("*.yaml")})
    raise ConfigError(
        f"no profile {str(name_or_path)!r}; known: {', '.join(known) or 'none'}. "
        "Copy slurm/profiles/a100.yaml and adapt it to your cluster."
    )


def _check_keys(path: Path, loaded: Any) -> None:
    from omegaconf import DictConfig

    if not isinstance(loaded, DictConfig):
        raise ConfigError(f"profile {path}: expected `key: value` lines, not a list")
    allowed = {item.name for item in fields(Profile)}
    for key in loaded:
        if key not in allowed:
            near = difflib.get_close_matches(str(key), allowed) or sorted(allowed)
            raise ConfigError(f"profile {path}: unknown key {key!r}; did you mean {near}?")


def _require(profile: str, name: str, given: str, allowed: tuple[str, ...]) -> None:
    if given not in allowed:
        raise ConfigError(f"profile {profile}: {name}={given!r} is not one of {', '.join(allowed)}")
