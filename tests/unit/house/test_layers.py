"""The import rules of CONTRIBUTING.md, read from the syntax tree."""

from __future__ import annotations

import ast
import functools
import graphlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from source_trees import REPOSITORY, SOURCES, place, syntax_nodes, syntax_tree

from sarhpc.stages.registry import STAGES

UPSTREAM = {
    "imaging": set(),
    "archive": {"imaging"},
    "tiling": {"archive", "shards"},
    "captioning": {"measures", "shards"},
    "shards": set(),
    "measures": set(),
    "diffusion": {"measures"},
    "training": {"diffusion", "shards", "measures"},
    "generation": {"imaging", "diffusion", "shards", "measures"},
    "corpus": {"archive", "measures", "shards"},
    "evaluation": {"shards", "measures"},
}
"""What each package of the science may import of the others."""

JOINTS = {
    "stages": {"launch", "cli", "api"},
    "launch": {"cli", "api", "viewer"},
    "viewer": {"cli", "launch", "stages"},
    "cli": set(),
    "api": set(),
}
"""Packages that join `hpc` and the science -> what they must not import of each other."""

HPC_ORDER = ["store", "cluster", "job", "observe"]
"""Packages of `hpc`; each may import those before it."""

OWNERS = {
    "submitit": ["hpc/cluster/submit.py", "hpc/cluster/batch.py", "hpc/cluster/detached.py"],
    "dask": ["hpc/cluster/dask"],
    "distributed": ["hpc/cluster/dask"],
    "subprocess": ["hpc/cluster/"],
    "deepspeed": ["sarhpc/training/"],
    "wandb": ["sarhpc/training/"],
    "tarfile": ["sarhpc/shards/"],
    "webdataset": ["sarhpc/shards/"],
    "sarkit": ["sarhpc/archive/"],
    "rasterio": ["sarhpc/archive/"],
    "h5py": ["sarhpc/archive/"],
    "pystac": ["sarhpc/archive/"],
    "tornado": ["sarhpc/viewer/"],
}
"""External system -> the only places that may import it."""

SLURM_COMMANDS = {
    "squeue": ["hpc/cluster/slurm.py"],
    "sacct": ["hpc/cluster/slurm.py"],
    "sacctmgr": ["hpc/cluster/slurm.py"],
    "scontrol": ["hpc/cluster/slurm.py"],
    "sinfo": ["hpc/cluster/slurm.py"],
    "scancel": ["hpc/cluster/slurm.py"],
    "srun": ["hpc/cluster/slurm.py"],
    "sbatch": ["hpc/cluster/slurm.py", "hpc/cluster/batch.py", "hpc/cluster/submit.py"],
}
"""Slurm's command -> the only files that may call it."""

HEAVY = {
    "torch",
    "diffusers",
    "transformers",
    "rasterio",
    "dask",
    "distributed",
    "scipy",
    "sarkit",
    "h5py",
    "numpy",
    "omegaconf",
}


@functools.cache
def imports(path: Path, *, top_level: bool = False) -> tuple[str, ...]:
    return tuple(_imports(path, top_level))


def _imports(path: Path, top_level: bool) -> Iterator[str]:
    for node in syntax_tree(path).body if top_level else syntax_nodes(path):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def module(path: Path) -> str:
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_hpc_never_imports_sarhpc() -> None:
    guilty = [
        f"{place(path)}: {name}"
        for path in SOURCES
        if place(path).startswith("hpc/")
        for name in imports(path)
        if name.split(".")[0] == "sarhpc"
    ]
    assert guilty == []


def strings(path: Path) -> set[str]:
    """The string constants of a file, docstrings excepted."""
    nodes = syntax_nodes(path)
    docstrings = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    constants = (n for n in nodes if isinstance(n, ast.Constant) and id(n) not in docstrings)
    return {node.value for node in constants if isinstance(node.value, str)}


def test_hpc_names_no_stage() -> None:
    names = {spec.name for spec in STAGES}
    guilty = [
        f"{place(path)}: {text}"
        for path in SOURCES
        if place(path).startswith("hpc/")
        for text in strings(path) & names
    ]
    assert guilty == []


def test_only_stages_and_the_cli_join_hpc_and_the_science() -> None:
    allowed = (
        "hpc.errors",
        "hpc.publish",
        "hpc.plugins",
        "hpc.documents",
        "hpc.job.agreement",
        "hpc.regular_files",
        "hpc.memory",
    )
    guilty = [
        f"{place(path)}: {name}"
        for path in SOURCES
        if place(path).startswith("sarhpc/")
        and not place(path).startswith(tuple(f"sarhpc/{joint}" for joint in JOINTS))
        for name in imports(path)
        if name.split(".")[0] == "hpc" and not name.startswith(allowed) and name != "hpc"
    ]
    assert guilty == []


@pytest.mark.parametrize("package", sorted(UPSTREAM))
def test_packages_of_the_science_import_only_upstream(package: str) -> None:
    guilty = [
        f"{place(path)}: {name}"
        for path in SOURCES
        if place(path).startswith(f"sarhpc/{package}/")
        for name in imports(path)
        if name.startswith("sarhpc.")
        and name.split(".")[1] not in {package, *UPSTREAM[package]}
        and name != "sarhpc.__version__"
    ]
    assert guilty == []


@pytest.mark.parametrize("joint", sorted(JOINTS))
def test_what_joins_them_imports_downwards_only(joint: str) -> None:
    guilty = [
        f"{place(path)}: {name}"
        for path in SOURCES
        if place(path).startswith(f"sarhpc/{joint}/")
        for name in imports(path)
        if name.startswith("sarhpc.") and name.split(".")[1] in JOINTS[joint]
    ]
    assert guilty == []


def test_measures_import_nothing_of_ours() -> None:
    guilty = [
        f"{place(path)}: {name}"
        for path in SOURCES
        if place(path).startswith("sarhpc/measures/")
        for name in imports(path)
        if name.startswith(("sarhpc.", "hpc")) and not name.startswith("sarhpc.measures")
    ]
    assert guilty == []


@pytest.mark.parametrize("package", HPC_ORDER)
def test_packages_of_hpc_import_downwards_only(package: str) -> None:
    later = set(HPC_ORDER[HPC_ORDER.index(package) + 1 :])
    guilty = [
        f"{place(path)}: {name}"
        for path in SOURCES
        if place(path).startswith(f"hpc/{package}/")
        for name in imports(path)
        if name.startswith("hpc.") and name.split(".")[1] in later
    ]
    assert guilty == []


def test_modules_directly_in_hpc_import_no_package_of_it() -> None:
    guilty = [
        f"{place(path)}: {name}"
        for path in (REPOSITORY / "hpc").glob("*.py")
        for name in imports(path)
        if name.startswith("hpc.") and (REPOSITORY / "hpc" / name.split(".")[1]).is_dir()
    ]
    assert guilty == []


def test_only_submitted_scripts_use_the_former_name_of_requeue() -> None:
    former = "hpc.resilience"
    guilty = [
        f"{place(path)}: {name}"
        for path in SOURCES
        for name in imports(path)
        if name.startswith(former) and not place(path).startswith("hpc/resilience/")
    ]
    assert guilty == []


def test_no_module_imports_itself_by_way_of_others() -> None:
    """Imports inside functions count: they only put a circle off until somebody calls them."""
    modules = {module(path): path for path in SOURCES}
    graph = {
        name: {found for found in imports(path) if found in modules and found != name}
        for name, path in modules.items()
    }
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))


@pytest.mark.parametrize("system", sorted(OWNERS))
def test_every_external_system_has_one_owner(system: str) -> None:
    guilty = [
        f"{place(path)}: {name}"
        for path in SOURCES
        if not place(path).startswith(tuple(OWNERS[system]))
        for name in imports(path)
        if name.split(".")[0] == system
    ]
    assert guilty == []


@functools.cache
def called_commands(path: Path) -> frozenset[str]:
    return frozenset(_called_commands(path))


def _called_commands(path: Path) -> Iterator[str]:
    """First words of the lists that look like command lines; choices of a parser are none."""
    nodes = syntax_nodes(path)
    choices = [n.value for n in nodes if isinstance(n, ast.keyword) and n.arg == "choices"]
    for node in nodes:
        if node in choices:
            continue
        if isinstance(node, ast.List) and node.elts and isinstance(node.elts[0], ast.Constant):
            yield str(node.elts[0].value).rsplit("/", 1)[-1]


@pytest.mark.parametrize("command", sorted(SLURM_COMMANDS))
def test_every_slurm_command_has_one_caller(command: str) -> None:
    callers = {place(path) for path in SOURCES if command in called_commands(path)}
    assert callers <= set(SLURM_COMMANDS[command])
    assert callers, "this test no longer recognises how commands are called"


def test_what_help_imports_imports_nothing_heavy_at_its_top() -> None:
    light = [
        path
        for path in SOURCES
        if place(path).startswith(("sarhpc/cli/", "sarhpc/stages/")) or path.name == "config.py"
    ]
    guilty = [
        f"{place(path)}: {name}"
        for path in light
        for name in imports(path, top_level=True)
        if name.split(".")[0] in HEAVY
    ]
    assert guilty == []


def test_no_package_is_called_by_a_name_that_says_nothing() -> None:
    names = {"utils", "helpers", "common", "misc", "base", "core"}
    assert [place(p) for p in SOURCES if p.stem in names or p.parent.name in names] == []


def definitions(
    within: ast.AST,
) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    """Yield functions and classes, those inside of others too; expressions have none."""
    for node in ast.iter_child_nodes(within):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node
        if isinstance(node, ast.stmt | ast.excepthandler | ast.match_case):
            yield from definitions(node)


def test_files_and_functions_stay_short() -> None:
    long = []
    others = [path for name in ("tests", "tools") for path in (REPOSITORY / name).rglob("*.py")]
    for path in (*SOURCES, *others):
        text = path.read_text()
        if text.count("\n") > 400:
            long.append(f"{place(path)}: {text.count(chr(10))} lines")
        for node in definitions(syntax_tree(path)):
            if not isinstance(node, ast.ClassDef):
                lines = (node.end_lineno or 0) - node.lineno + 1
                if lines > 70:
                    long.append(f"{place(path)}:{node.lineno} {node.name}: {lines} lines")
    assert long == []
