"""Compiling the CUDA guard of the pretended GPU."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from pathlib import Path

COMPILER = "g++"
_SOURCE = Path(__file__).with_name("cuda_guard.cpp")


def compile_guard(folder: Path) -> Path | None:
    """The shared library, compiled into `folder` (15 s); None without a compiler.

    Raises:
        CalledProcessError: the source does not fit this torch.
    """
    if shutil.which(COMPILER) is None:
        return None
    found = importlib.util.find_spec("torch")
    assert found is not None
    assert found.origin is not None
    torch = Path(found.origin).parent
    library = folder / "libcuda_guard.so"
    subprocess.run(
        [
            *(COMPILER, "-O0", "-std=c++20", "-shared", "-fPIC", f"-I{torch}/include"),
            *(str(_SOURCE), "-o", str(library), f"-L{torch}/lib", "-ltorch_cpu", "-lc10"),
            f"-Wl,-rpath,{torch}/lib",
        ],
        check=True,
        capture_output=True,
        text=True,
    )
    return library
