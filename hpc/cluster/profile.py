"""A profile: the settings of one cluster, so that the code has no site names.

A profile is a YAML file in `slurm/profiles/`. It is read with a strict schema and turned into the
parameters of a submission; everything that reaches a shell is quoted here.
"""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from hpc.config import refuse_mistyped
from hpc.documents import check_yaml
from hpc.errors import ConfigError, HpcError
from hpc.resolvers import interpolations
from hpc.store.ownership import read_own_file

EXECUTORS = ("slurm", "local", "debug")
REQUEUE_MODES = ("scontrol", "chain", "none")
CONTAINER_RUNTIMES = ("apptainer", "pyxis")
_SHIPPED = Path(__file__).resolve().parents[1] / "slurm" / "profiles"
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OPTION = re.compile(r"[a-z][a-z0-9-]*")


@dataclass(frozen=True)
class Resources:
    """Resources of one job."""

    nodes: int = 1
    """Nodes."""
    tasks_per_node: int = 1
    """Processes per node; one per GPU for training."""
    cpus_per_task: int = 1
    """CPU cores of each process."""
    gpus_per_node: int = 0
    """GPUs per node."""
    mem_gb: float = 4.0
    """Memory per node in GB."""
    time_min: int = 60
    """Walltime in minutes."""
    elements: int = 1
    """Maximum elements of the job array that shares the shards of a stage; 1 means no array."""
    partition: str | None = None
    """Slurm partition of this stage; None for the profile's."""
    account: str | None = None
    """Account of this stage; None for the profile's."""
    qos: str | None = None
    """Quality of service of this stage; None for the profile's."""
    constraint: str | None = None
    """Node features that this stage needs; None for the profile's."""

    def __post_init__(self) -> None:
        counts = ("nodes", "tasks_per_node", "cpus_per_task", "time_min", "elements")
        for name in (*counts, "mem_gb"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"resources: {name}={getattr(self, name)} must be above 0")
        if self.gpus_per_node < 0:
            raise ConfigError(f"resources: gpus_per_node={self.gpus_per_node} must not be negative")

    @property
    def tasks(self) -> int:
        """Processes on all nodes."""
        return self.nodes * self.tasks_per_node

    @property
    def gpus(self) -> int:
        """GPUs on all nodes."""
        return self.nodes * self.gpus_per_node


@dataclass(frozen=True)
class Container:
    """The container image that jobs run in; its interpreter is used."""

    runtime: str = "apptainer"
    """`apptainer` (also singularity) or `pyxis` (srun's own options)."""
    image: str = ""
    """Path of a `.sif` or `.sqsh` file, or another name that the runtime accepts; required."""
    mounts: list[str] = field(default_factory=list)
    """Folders to mount, `OUTSIDE` or `OUTSIDE:INSIDE`; include the run and its data."""
    python: str = "python3"
    """Interpreter inside the image."""

    def __post_init__(self) -> None:
        if self.runtime not in CONTAINER_RUNTIMES or not self.image:
            raise ConfigError(
                f"container: needs an image and one of the runtimes {', '.join(CONTAINER_RUNTIMES)}"
            )

    def srun_options(self) -> list[str]:
        """Options of srun for the container."""
        if self.runtime != "pyxis":
            return []
        mounts = [mount if ":" in mount else f"{mount}:{mount}" for mount in self.mounts]
        options = [f"--container-image={self.image}"]
        return options + ([f"--container-mounts={','.join(mounts)}"] if mounts else [])

    def interpreter_command(self, gpus: bool) -> list[str]:
        """The interpreter with its prefix, such as `apptainer exec IMAGE python3`."""
        if self.runtime == "pyxis":
            return [self.python]
        binds = [part for mount in self.mounts for part in ("--bind", mount)]
        return ["apptainer", "exec", *(["--nv"] if gpus else []), *binds, self.image, self.python]


@dataclass(frozen=True)
class Profile:
    """One cluster: partitions and accounts, the environment of jobs, and how they are requeued."""

    name: str = "local"
    """Name of the cluster, as in `--profile`."""
    file: str = ""
    """Where the profile was read from; filled in by `load_profile`."""
    executor: str = "local"
    """How jobs run: `slurm`, `local` (processes on this machine) or `debug` (in-process)."""
    cluster: str | None = None
    """Slurm's ClusterName; if it matches, the profile is used without `--profile`."""
    partition: str | None = None
    """Slurm partition of jobs without GPUs, and of all jobs if `gpu_partition` is not set."""
    gpu_partition: str | None = None
    """Slurm partition of jobs with GPUs."""
    account: str | None = None
    """Account of jobs without GPUs, and of all jobs if `gpu_account` is not set."""
    gpu_account: str | None = None
    """Account of jobs with GPUs."""
    qos: str | None = None
    """Quality of service of jobs without GPUs, and of all jobs if `gpu_qos` is not set."""
    gpu_qos: str | None = None
    """Quality of service of jobs with GPUs."""
    constraint: str | None = None
    """Node features, such as `a100&nvme`."""
    gpu_syntax: str = "gpus-per-node"
    """How GPUs are requested: `gpus-per-node` or `gres`."""
    gpu_type: str | None = None
    """Type of GPU in that request, such as `a100`."""
    gpu_memory_gb: float | None = None
    """Memory of each GPU as its name has it, GB (40, 64, 80, 141): what a dry run fits to."""
    ask_memory: bool = True
    """Whether to request `mem_gb`; some sites refuse that and assign memory by the core."""
    options: dict[str, str] = field(default_factory=dict)
    """Further options of sbatch by their long names, such as `hint: nomultithread`."""
    modules: list[str] = field(default_factory=list)
    """Environment modules to load before the job starts."""
    env: dict[str, str] = field(default_factory=dict)
    """Environment variables of the job, literal; `${oc.env:X}` is expanded at submission, as
    `hpc.resolvers` allows it."""
    python: str | None = None
    """Interpreter of the jobs; None for the submitting one. A container has its own."""
    container: Container | None = None
    """Container image; None runs directly on the node."""
    max_array: int = 1000
    """Maximum elements of one job array; below Slurm's MaxArraySize if the site requires it."""
    max_jobs: int | None = None
    """Maximum jobs in the queue, array elements counted; None for no limit."""
    max_running: int | None = None
    """Maximum elements of an array that run at the same time; None for no limit."""
    requeue: str = "scontrol"
    """How a preempted job is requeued: `scontrol` (by itself), `chain` (a waiting successor
    continues) or `none`."""
    successors: int = 1
    """Waiting successors of each job where `requeue` is `chain`."""
    grace_s: int = 300
    """Seconds between SIGUSR2 and the time limit: at least twice a step plus a save."""
    resources: Resources = field(default_factory=Resources)
    """Resources of the stages that are not in `stages`."""
    stages: dict[str, Resources] = field(default_factory=dict)
    """Resources by stage."""

    def __post_init__(self) -> None:
        _require(self.name, "executor", self.executor, EXECUTORS)
        _require(self.name, "requeue", self.requeue, REQUEUE_MODES)
        _require(self.name, "gpu_syntax", self.gpu_syntax, ("gpus-per-node", "gres"))
        if self.gpu_memory_gb is not None and self.gpu_memory_gb <= 0:
            raise ConfigError(
                f"profile {self.name}: gpu_memory_gb={self.gpu_memory_gb} must be above 0"
            )
        for variable in self.env:
            if not _VARIABLE.fullmatch(variable):
                raise ConfigError(f"profile {self.name}: env: {variable!r} is not a variable name")
        for option in self.options:
            if not _OPTION.fullmatch(option):
                raise ConfigError(f"profile {self.name}: options: {option!r} is not a long option")
        for where, text in _texts(self):
            # A line break would end the `#SBATCH` line and start another one.
            if not text.isprintable():
                raise ConfigError(f"profile {self.name}: {where} contains a control character")

    def resources_of(self, stage: str) -> Resources:
        """Resources of `stage` on this cluster."""
        return self.stages.get(stage, self.resources)

    def setup_lines(self) -> list[str]:
        """Shell lines to run before the job, quoted."""
        lines = [f"module load {shlex.quote(module)}" for module in self.modules]
        return lines + [f"export {name}={shlex.quote(text)}" for name, text in self.env.items()]

    def slurm_parameters(self, resources: Resources) -> dict[str, Any]:
        """Parameters for Slurm in addition to the resources, by sbatch option name."""
        gpus = resources.gpus_per_node > 0
        options: dict[str, Any] = {
            "partition": resources.partition or (gpus and self.gpu_partition) or self.partition,
            "account": resources.account or (gpus and self.gpu_account) or self.account,
            "qos": resources.qos or (gpus and self.gpu_qos) or self.qos,
            "constraint": resources.constraint or self.constraint,
            "signal_delay_s": self.grace_s,
            "setup": self.setup_lines() or None,
        }
        requeue = {"requeue": True} if self.requeue == "scontrol" else {"no-requeue": True}
        requested = self._gpu_request(resources.gpus_per_node)
        options["additional_parameters"] = {**requeue, **requested, **self.options}
        return {name: option for name, option in options.items() if option is not None}

    def interpreter_command(self, resources: Resources, interpreter: str) -> list[str]:
        """The interpreter of a job, with the prefix of its container.

        Args:
            resources: of the job.
            interpreter: the submitting one, used unless the profile names another.
        """
        if self.container is not None:
            return self.container.interpreter_command(resources.gpus_per_node > 0)
        return [self.python or interpreter]

    def _gpu_request(self, gpus: int) -> dict[str, str]:
        if gpus == 0:
            return {}
        typed = f"{self.gpu_type}:{gpus}" if self.gpu_type else str(gpus)
        return {"gres": f"gpu:{typed}"} if self.gpu_syntax == "gres" else {"gpus-per-node": typed}


def load_profile(name_or_path: str | Path, folders: list[Path] | None = None) -> Profile:
    """The profile with that name, or in that YAML file.

    Args:
        name_or_path: a name such as `a100`, or a path ending in `.yaml`.
        folders: search path for names; by default `slurm/profiles` in the working directory and
            in this package.

    Raises:
        ConfigError: no such profile, an unknown key (with the nearest names) or a bad value.
        NotTrustedError: another user can write it: modules, environment and options of jobs.
    """
    from omegaconf import OmegaConf

    path = _find(name_or_path, _profile_folders() if folders is None else folders)
    schema = OmegaConf.structured(Profile)
    # Frozen dataclasses make the schema read-only; to_object gives frozen values again.
    OmegaConf.set_readonly(schema, False)
    try:
        # Who installed this code can make it do anything already.
        text = read_own_file(path, owners=[Path(__file__).stat().st_uid])
        loaded = OmegaConf.create(check_yaml(text))
        _check_keys(path, loaded)
        interpolations(OmegaConf.to_container(loaded), str(path), "own")
        own = {"name": path.stem, "file": str(path.resolve())}
        merged = OmegaConf.merge(schema, own, loaded)
        profile = OmegaConf.to_object(merged)
        refuse_mistyped(profile, f"profile {path}")
    except HpcError as error:
        known = str(path) in str(error)
        raise error if known else ConfigError(f"profile {path}: {error}") from error
    except Exception as error:  # OmegaConf and its grammar assert and miss keys, among others
        raise ConfigError(f"profile {path}: {' '.join(str(error).split())}") from error
    assert isinstance(profile, Profile)
    return profile


def profiles_of_cluster(cluster: str) -> list[Profile]:
    """The profiles whose `cluster` is this one."""
    paths = {p.stem: p for folder in _profile_folders()[::-1] for p in folder.glob("*.yaml")}
    named = (p for p in paths.values() if f"cluster: {cluster}\n" in p.read_text(errors="replace"))
    return [profile for path in named if (profile := load_profile(path)).cluster == cluster]


def profile_names(folders: list[Path] | None = None) -> list[str]:
    """Names of the profiles that `load_profile` finds."""
    folders = _profile_folders() if folders is None else folders
    return sorted({path.stem for folder in folders for path in folder.glob("*.yaml")})


def _profile_folders() -> list[Path]:
    return [Path.cwd() / "slurm" / "profiles", _SHIPPED]


def _find(name_or_path: str | Path, folders: list[Path]) -> Path:
    given = Path(name_or_path)
    if given.suffix in (".yaml", ".yml"):
        candidates = [given]
    else:
        candidates = [folder / f"{name_or_path}.yaml" for folder in folders]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    known = profile_names(folders)
    raise ConfigError(
        f"no profile {str(name_or_path)!r}; known: {', '.join(known) or 'none'}. "
        f"Copy {_SHIPPED}/a100.yaml and adapt it to your cluster, or draft one there with "
        "`sarhpc doctor --write-profile`."
    )


def _check_keys(path: Path, loaded: Any) -> None:
    from omegaconf import DictConfig

    if not isinstance(loaded, DictConfig):
        raise ConfigError(f"profile {path}: expected `key: value` lines, not a list")
    allowed = {item.name for item in fields(Profile)} - {"file"}
    for key in loaded:
        if key not in allowed:
            near = difflib.get_close_matches(str(key), allowed) or sorted(allowed)
            raise ConfigError(f"profile {path}: unknown key {key!r}; did you mean {near}?")


def _texts(profile: Profile) -> Iterator[tuple[str, str]]:
    """Every string of a profile that is written into the script, with its key."""
    branches: list[tuple[str, Profile | Resources]] = [("", profile)]
    branches += [(f"stages.{name}.", resources) for name, resources in profile.stages.items()]
    for place, branch in branches:
        for item in fields(branch):
            value = getattr(branch, item.name)
            if isinstance(value, str):
                yield f"{place}{item.name}", value
    yield from ((f"modules.{n}", text) for n, text in enumerate(profile.modules))
    yield from ((f"options.{name}", text) for name, text in profile.options.items())
    if profile.container is not None:
        texts = (profile.container.image, *profile.container.mounts, profile.container.python)
        yield from (("container", text) for text in texts)


def _require(profile: str, name: str, given: str, allowed: tuple[str, ...]) -> None:
    if given not in allowed:
        raise ConfigError(f"profile {profile}: {name}={given!r} is not one of {', '.join(allowed)}")
