"""Whether the torch of this environment can use the GPUs of this node, and which build could.

A build of torch for a newer CUDA than the driver knows sees no GPU and computes on the CPU. That is
a fault of the environment, the same on every node with that driver, so no node is to blame.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from hpc.errors import ConfigError

MINIMUM_DRIVER = {13: 580, 12: 525, 11: 450}
"""Major version of CUDA -> oldest branch of the driver that runs it.

NVIDIA, CUDA Compatibility, table 1."""
INDEX = {13: "cu130", 12: "cu126", 11: "cu118"}
"""Major version of CUDA -> a wheel index of torch for it."""
_WHEELS = "https://download.pytorch.org/whl"
_LOADED_DRIVER = Path("/proc/driver/nvidia/version")
_ANSWER_S = 60.0


class TorchBuildError(ConfigError):
    """The torch of this environment cannot use the GPUs of the job."""


def gpus_of_job(environment: Mapping[str, str] | None = None) -> int:
    """GPUs that Slurm gave this job on this node; 0 outside a job, or if the CPU is asked for."""
    env = os.environ if environment is None else environment
    if env.get("DS_ACCELERATOR") == "cpu" or "SLURM_JOB_ID" not in env:
        return 0
    return int(env.get("SLURM_GPUS_ON_NODE") or 0)


def torch_sees_gpus() -> bool:
    """Whether torch sees a GPU in this process; True without torch, which then nothing needs."""
    if importlib.util.find_spec("torch") is None:
        return True
    import torch

    return torch.cuda.is_available()


def require_fitting_torch(gpus: int) -> None:
    """Raise TorchBuildError if torch sees none of the `gpus` because it is not built for them.

    A torch that would fit and sees none all the same raises nothing: then the node is at fault.

    Raises:
        TorchBuildError: with the driver, the CUDA of this torch, and the wheel index to use.
    """
    if torch_sees_gpus():
        return
    import torch

    if (reason := misfit(torch.__version__, torch.version.cuda, driver_version())) is not None:
        raise TorchBuildError(
            f"this node has {gpus} GPUs for the job and torch sees none: {reason}. Without it the "
            "work would be done on the CPU; DS_ACCELERATOR=cpu asks for that"
        )


def misfit(torch_version: str, cuda: str | None, driver: str | None) -> str | None:
    """Why a build of torch sees no GPU under a driver, and what to install; None if it should.

    None too for a build with CUDA where there is no driver: that is for the node to explain.

    Args:
        torch_version: as torch has it, such as `2.13.0+cpu`.
        cuda: version of CUDA that it is built for; None for a build without.
        driver: version of the driver, such as `550.54.15`; None if unknown.
    """
    major = None if cuda is None else int(cuda.partition(".")[0])
    branch = None if driver is None else int(driver.partition(".")[0])
    # A node with GPUs and no driver is at fault itself, whatever torch is built for.
    if major is not None and (branch is None or branch >= MINIMUM_DRIVER.get(major, 0)):
        return None
    build = "no CUDA" if cuda is None else f"CUDA {cuda}"
    needs = MINIMUM_DRIVER.get(major or 0)
    needed = "" if needs is None else f", which needs driver {needs} or newer"
    known = "the driver is unknown (no nvidia-smi)" if driver is None else f"the driver is {driver}"
    return f"torch {torch_version} is built for {build}{needed}, and {known}; {_remedy(branch)}"


def _remedy(branch: int | None) -> str:
    """Which wheel to install under a branch of the driver."""
    if branch is None:
        return (
            f"install torch from {_WHEELS}/{INDEX[13]} for drivers from {MINIMUM_DRIVER[13]}, from "
            f"{_WHEELS}/{INDEX[12]} for older ones from {MINIMUM_DRIVER[12]}"
        )
    fitting = [major for major, oldest in MINIMUM_DRIVER.items() if branch >= oldest]
    if not fitting:
        return "no torch that this project supports runs under it: ask for a newer driver"
    return f"pip install --index-url {_WHEELS}/{INDEX[max(fitting)]} torch"


def driver_version() -> str | None:
    """Version of the NVIDIA driver of this node; None if there is none, or it does not answer."""
    try:
        if found := re.search(r"\s(\d{3,}\.\d+(\.\d+)?)\s", _LOADED_DRIVER.read_text()):
            return found[1]
    except OSError:
        pass
    if shutil.which("nvidia-smi") is None:
        return None
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=_ANSWER_S
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return next(iter(done.stdout.split()), None)
