"""The verb `doctor`: what this machine and its cluster offer and lack."""

from __future__ import annotations

import argparse
import functools
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hpc.errors import ConfigError
from hpc.shell import quoted
from sarhpc.cli.verbs import Verbs, add_verb
from sarhpc.extras import CHAIN, EXTRA_OF, is_installed
from sarhpc.stages.registry import profile_requests
from sarhpc.stages.train import TRAIN

if TYPE_CHECKING:
    from hpc.cluster.doctor import Finding
    from hpc.cluster.profile import Profile

PACKAGES = (
    "torch", "deepspeed", "diffusers", "transformers", "safetensors", "numpy", "scipy", "dask",
    "distributed", "submitit", "rasterio", "sarkit", "pystac", "omegaconf",
)  # fmt: skip
MODULES = ("torch", "diffusers", "transformers", "deepspeed", "rasterio", "distributed")
MARKS = {"ok": "ok  ", "warn": "warn", "fail": "FAIL"}

_OFFLINE = """
import sys
from pathlib import Path
from sarhpc.captioning.captioners.blip import load_blip
from sarhpc.diffusion.bundle import load_bundle
for kind, folder in zip(sys.argv[1::2], sys.argv[2::2]):
    load_blip(folder) if kind == "blip" else load_bundle(Path(folder))
"""


def add_doctor(verbs: Verbs) -> None:
    """Add `doctor`."""
    doctor = add_verb(verbs, "doctor", "check this machine and its cluster")
    doctor.add_argument("run", nargs="?", help="run directory, to check the file system it is on")
    doctor.add_argument("--profile", help="test whether Slurm accepts the jobs of this profile")
    doctor.add_argument("--nodes", type=int, metavar="N", help="with --profile: all-reduce between "
                        "N nodes, as a short job")  # fmt: skip
    doctor.add_argument("--quick", action="store_true", help="skip what takes seconds: "
                        "imports, GPUs, all-reduce, offline check")  # fmt: skip
    doctor.add_argument("--json", action="store_true", help="machine-readable")
    doctor.add_argument("--write-profile", nargs="?", const="", metavar="FILE",
                        help="draft a profile (default slurm/profiles/CLUSTER.yaml)")  # fmt: skip
    doctor.set_defaults(handler=doctor_verb)


def doctor_verb(arguments: argparse.Namespace) -> int:
    """Show what this machine and its cluster offer and lack; exit 1 if anything would fail."""
    if arguments.write_profile is not None:
        return _write_profile(arguments.write_profile)
    found = []
    for finding in _findings(arguments):
        found.append(finding)
        if not arguments.json:
            print(f"{MARKS[finding.state]}  {finding.check:<18} {finding.message}", flush=True)
            if finding.advice:
                print(f"{'':24} -> {finding.advice}", flush=True)
    failed = [finding for finding in found if finding.state == "fail"]
    if arguments.json:
        print(json.dumps([finding.to_json() for finding in found], indent=1))
    else:
        print(f"{len(found)} checks, {len(failed)} failed")
    return 1 if failed else 0


def _write_profile(name: str) -> int:
    from hpc.cluster.draft import write_profile

    path = write_profile(Path(name) if name else None, profile_requests())
    print(f"wrote {path}; look through it, then: sarhpc doctor --profile {quoted(path)}")
    return 0


def _findings(arguments: argparse.Namespace) -> Iterator[Finding]:
    """Findings in the order of their cost, the cheap ones first."""
    from hpc.cluster import doctor, site

    profile = _profile(arguments.profile)
    yield from doctor.check_python(_expected(PACKAGES))
    lacking = [extra for extra in CHAIN if not is_installed(extra)]
    if lacking:
        yield doctor.Finding("extras", doctor.WARN, f"not installed: {', '.join(lacking)}",
                             f"for all of them: pip install 'sarhpc[{CHAIN[-1]}]'")  # fmt: skip
    folders = doctor.folders_to_check(os.environ)
    if arguments.run:
        folders["run"] = _run_folder(Path(arguments.run))
    for name, folder in folders.items():
        look = functools.partial(doctor.check_folder, name, folder)
        yield doctor.run_check(f"folder {name}", look)
    place = folders.get("run", Path.cwd())
    yield doctor.run_check("publishing", lambda: doctor.check_publishing(place))
    yield from site.check_slurm()
    if profile is not None:
        yield from site.check_profile(profile)
        if arguments.nodes:
            yield site.check_between_nodes(
                profile, profile.resources_of(TRAIN.name), arguments.nodes
            )
    if not arguments.quick:
        yield from _slow_findings()


def _slow_findings() -> Iterator[Finding]:
    from hpc.cluster import doctor

    yield doctor.run_check("imports", lambda: doctor.check_imports(_expected(MODULES)))
    if not is_installed("generate"):
        return
    yield from doctor.gpu_findings(compute=True)
    yield doctor.run_check("all-reduce gloo", lambda: doctor.check_all_reduce("gloo", 2))
    gpus = doctor.count_gpus()
    if gpus:
        yield doctor.run_check("all-reduce nccl", lambda: doctor.check_all_reduce("nccl", gpus))
    yield doctor.run_check("offline", lambda: doctor.check_offline(_OFFLINE, _models()))


def _expected(packages: Sequence[str]) -> list[str]:
    """Those of `packages` that every installation has, and those of its extras."""
    return [p for p in packages if p not in EXTRA_OF or is_installed(EXTRA_OF[p])]


def _profile(name: str | None) -> Profile | None:
    from hpc.cluster.profile import load_profile

    return load_profile(name) if name else None


def _run_folder(run: Path) -> Path:
    """The run directory, or the folder it would be made in."""
    found = next((folder for folder in (run, *run.parents) if folder.is_dir()), None)
    if found is None:
        raise ConfigError(f"no folder above {run} exists; make one, or name another run")
    return found.resolve()


def _models() -> list[str]:
    """Kind and folder of every model that ships with the package, one after the other."""
    from sarhpc.stages.inputs.paths import embedded_root

    folders = sorted(path for path in embedded_root().iterdir() if path.is_dir())
    kinds = ["bundle" if (path / "model_index.json").exists() else "blip" for path in folders]
    return [word for pair in zip(kinds, map(str, folders), strict=True) for word in pair]
