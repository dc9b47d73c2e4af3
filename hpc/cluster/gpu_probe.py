"""Multiply matrices once on every GPU of this process; exit code 1 on an error or a wrong result.

Run as `python -m hpc.cluster.gpu_probe COUNT`, in a process of its own. A torch that is not built
for the driver is no fault of a GPU: exit code 2.
"""

from __future__ import annotations

import sys
import time

from hpc.cluster.gpu_driver import TorchBuildError, require_fitting_torch

_SIZE = 2048
_ALLOCATE_SHARE = 0.5
"""Share of the free memory that must be allocatable."""


def probe(count: int) -> list[str]:
    """One line per GPU with the time it took.

    Raises:
        RuntimeError: fewer than `count` GPUs, a failed allocation, or a wrong product.
        TorchBuildError: this torch is not built for the driver.
    """
    import torch

    visible = torch.cuda.device_count()
    if not visible:
        require_fitting_torch(count)
    if visible < count:
        raise RuntimeError(f"torch sees {visible} GPUs, {count} were requested")
    generator = torch.Generator().manual_seed(0)
    # Products of integers this small are exact in float32.
    left = torch.randint(-8, 9, (_SIZE, _SIZE), generator=generator).float()
    right = torch.randint(-8, 9, (_SIZE, _SIZE), generator=generator).float()
    expected = left @ right
    torch.backends.cuda.matmul.allow_tf32 = False
    lines = []
    for index in range(count):
        begin = time.monotonic()
        device = torch.device("cuda", index)
        free, _ = torch.cuda.mem_get_info(device)
        block = torch.ones(int(free * _ALLOCATE_SHARE), dtype=torch.uint8, device=device)
        if int(block[-1]) != 1 or not torch.equal(
            (left.to(device) @ right.to(device)).cpu(), expected
        ):
            raise RuntimeError(f"GPU {index} gives a wrong product")
        del block
        lines.append(f"GPU {index} correct in {time.monotonic() - begin:.1f} s")
    return lines


if __name__ == "__main__":
    try:
        print("; ".join(probe(int(sys.argv[1]))))
    except TorchBuildError as error:
        print(error)
        sys.exit(error.exit_code)
    except RuntimeError as error:
        sys.exit(" ".join(str(error).split())[:300])
