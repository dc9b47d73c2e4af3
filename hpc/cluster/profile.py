"""A profile: what one cluster wants to hear, so that no site name stands in the code.

A profile is a YAML file in `slurm/profiles/`. It is read with a strict schema and turned into the
parameters of a submission; every word that reaches a shell is quoted here.
"""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from hpc.errors import ConfigError

EXECUTORS = ("slurm", "local", "debug")
REQUEUE_MODES = ("scontrol", "chain", "none")
CONTAINER_RUNTIMES = ("apptainer", "pyxis")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OPTION = re.compile(r"[a-z][a-z0-9-]*")


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
    elements: int = 1
    """Most elements of the job array that shares the shards of a sharded stage; 1 is no array."""
    partition: str | None = None
    """Slurm partition of this stage; None for the profile's."""
    account: str | None = None
    """Account that pays for this stage; None for the profile's."""
    qos: str | None = None
    """Quality of service of this stage; None for the profile's."""
    constraint: str | None = None
    """Node features this stage needs; None for the profile's."""

    def __post_init__(self) -> None:
        counts = ("nodes", "tasks_per_node", "cpus_per_task", "time_min", "elements")
        for name in (*counts, "mem_gb"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"resources: {name}={getattr(self, name)} must be above 0")
        if self.gpus_per_node < 0:
            raise ConfigError(f"resources: gpus_per_node={self.gpus_per_node} must not be negative")

    @property
    def tasks(self) -> int:
        """Processes on all machines together."""
        return self.nodes * self.tasks_per_node

    @property
    def gpus(self) -> int:
        """GPUs on all machines together."""
        return self.nodes * self.gpus_per_node


@dataclass(frozen=True)
class Container:
    """The image that jobs run in; the interpreter is then the one inside."""

    runtime: str = "apptainer"
    """`apptainer` (also singularity) or `pyxis` (srun's own options)."""
    image: str = ""
    """Path of a `.sif` or `.sqsh` file, or what else the runtime accepts; required."""
    mounts: list[str] = field(default_factory=list)
    """Folders to see inside, `OUTSIDE` or `OUTSIDE:INSIDE`; the run and its data belong here."""
    python: str = "python3"
    """Interpreter inside the image."""

    def __post_init__(self) -> None:
        if self.runtime not in CONTAINER_RUNTIMES or not self.image:
            raise ConfigError(
                f"container: needs an image and one of the runtimes {', '.join(CONTAINER_RUNTIMES)}"
            )

    def srun_words(self) -> list[str]:
        """Options of srun itself."""
        if self.runtime != "pyxis":
            return []
        mounts = [mount if ":" in mount else f"{mount}:{mount}" for mount in self.mounts]
        words = [f"--container-image={self.image}"]
        return words + ([f"--container-mounts={','.join(mounts)}"] if mounts else [])

    def program_words(self, gpus: bool) -> list[str]:
        """What stands before the interpreter, and the interpreter."""
        if self.runtime == "pyxis":
            return [self.python]
        binds = [word for mount in self.mounts for word in ("--bind", mount)]
        return ["apptainer", "exec", *(["--nv"] if gpus else []), *binds, self.image, self.python]


@dataclass(frozen=True)
class Profile:
    """One cluster: where jobs go, what they find there and how they come back."""

    name: str = "local"
    """Name of the cluster, as in `--profile`."""
    file: str = ""
    """Where the profile was read from; filled in by `load_profile`."""
    executor: str = "local"
    """Who runs the job: `slurm`, `local` (processes on this machine) or `debug` (in-process)."""
    cluster: str | None = None
    """Slurm's ClusterName; where it matches, the profile is taken without `--profile`."""
    partition: str | None = None
    """Slurm partition for jobs without GPUs, and for all if `gpu_partition` is not set."""
    gpu_partition: str | None = None
    """Slurm partition for jobs with GPUs."""
    account: str | None = None
    """Account that pays for jobs without GPUs, and for all if `gpu_account` is not set."""
    gpu_account: str | None = None
    """Account that pays for jobs with GPUs."""
    qos: str | None = None
    """Quality of service of jobs without GPUs, and of all if `gpu_qos` is not set."""
    gpu_qos: str | None = None
    """Quality of service of jobs with GPUs."""
    constraint: str | None = None
    """Node features, such as `a100&nvme`."""
    gpu_syntax: str = "gpus-per-node"
    """How GPUs are asked for: `gpus-per-node` or `gres`."""
    gpu_type: str | None = None
    """Type of GPU in that request, such as `a100`."""
    ask_memory: bool = True
    """Whether to ask for `mem_gb`; some sites refuse that and give memory by the core."""
    options: dict[str, str] = field(default_factory=dict)
    """More options of sbatch by their long names, such as `hint: nomultithread`."""
    modules: list[str] = field(default_factory=list)
    """Environment modules to load before the job starts."""
    env: dict[str, str] = field(default_factory=dict)
    """Environment variables of the job; taken literally, `${oc.env:X}` is read at submission."""
    python: str | None = None
    """Interpreter of the jobs; None for the one that submits. A container has its own."""
    container: Container | None = None
    """Image to run in; None runs on the node as it is."""
    max_array: int = 1000
    """Most elements of one job array; lower than Slurm's MaxArraySize if the site says so."""
    max_jobs: int | None = None
    """Most jobs in the queue at once, array elements counted; None for no limit of yours."""
    max_running: int | None = None
    """Most elements of an array that run at the same time; None for no limit."""
    requeue: str = "scontrol"
    """How a preempted job comes back: `scontrol` (requeue itself), `chain` (a waiting successor)
    or `none`."""
    successors: int = 1
    """Waiting successors of each job where `requeue` is `chain`."""
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
        for option in self.options:
            if not _OPTION.fullmatch(option):
                raise ConfigError(f"profile {self.name}: options: {option!r} is no long option")
        for where, text in _texts(self):
            # A line break would end the `#SBATCH` line and begin another one.
            if not text.isprintable():
                raise ConfigError(f"profile {self.name}: {where} holds a control character")

    def resources_of(self, stage: str) -> Resources:
        """What `stage` asks for on this cluster."""
        return self.stages.get(stage, self.resources)

    def setup_lines(self) -> list[str]:
        """Shell lines to run before the job, every word quoted."""
        lines = [f"module load {shlex.quote(module)}" for module in self.modules]
        return lines + [f"export {name}={shlex.quote(text)}" for name, text in self.env.items()]

    def slurm_parameters(self, resources: Resources) -> dict[str, Any]:
        """What Slurm is told beyond the resources themselves, by sbatch option name."""
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
        asked = self._gpu_request(resources.gpus_per_node)
        options["additional_parameters"] = {**requeue, **asked, **self.options}
        return {name: option for name, option in options.items() if option is not None}

    def program_words(self, resources: Resources, interpreter: str) -> list[str]:
        """The interpreter of a job, with what has to stand before it.

        Args:
            resources: of the job.
            interpreter: the one that submits, used unless the profile names another.
        """
        if self.container is not None:
            return self.container.program_words(resources.gpus_per_node > 0)
        return [self.python or interpreter]

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
        own = {"name": path.stem, "file": str(path.resolve())}
        merged = OmegaConf.merge(schema, own, loaded)
        profile = OmegaConf.to_object(merged)
    except (OmegaConfBaseException, YAMLError) as error:
        raise ConfigError(f"profile {path}: {' '.join(str(error).split())}") from error
    assert isinstance(profile, Profile)
    return profile


def profiles_of_cluster(cluster: str) -> list[Profile]:
    """The profiles that name `cluster` as theirs."""
    paths = {p.stem: p for folder in _profile_folders()[::-1] for p in folder.glob("*.yaml")}
    named = (p for p in paths.values() if f"cluster: {cluster}\n" in p.read_text())
    return [profile for path in named if (profile := load_profile(path)).cluster == cluster]


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
    allowed = {item.name for item in fields(Profile)} - {"file"}
    for key in loaded:
        if key not in allowed:
            near = difflib.get_close_matches(str(key), allowed) or sorted(allowed)
            raise ConfigError(f"profile {path}: unknown key {key!r}; did you mean {near}?")


def _texts(profile: Profile) -> Iterator[tuple[str, str]]:
    """Every text of a profile that ends in a line of the script, with its place."""
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
        words = (profile.container.image, *profile.container.mounts, profile.container.python)
        yield from (("container", word) for word in words)


def _require(profile: str, name: str, given: str, allowed: tuple[str, ...]) -> None:
    if given not in allowed:
        raise ConfigError(f"profile {profile}: {name}={given!r} is not one of {', '.join(allowed)}")
