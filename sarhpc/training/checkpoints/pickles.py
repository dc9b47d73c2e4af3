"""DeepSpeed's files, read without running anything they contain.

They are pickles, which name functions to call. torch's restricted reader calls none but its own
for tensors and those of the classes listed here, which only hold values.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

from hpc.errors import VerificationError


def read_pickle(path: Path, map_location: Any = "cpu", *, mmap: bool = False) -> dict[str, Any]:
    """The content of a `.pt` file that DeepSpeed wrote.

    Raises:
        VerificationError: it holds something else than DeepSpeed writes; none of it was run.
    """
    from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler, LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    plain: list[Any] = [DynamicLossScaler, LossScaler, ZeroStageEnum, fragment_address]
    try:
        with torch.serialization.safe_globals(plain):
            states: dict[str, Any] = torch.load(
                path, map_location=map_location, weights_only=True, mmap=mmap
            )
    except pickle.UnpicklingError as error:
        reason = str(error).split("\n")
        wanted = next((line.strip() for line in reason if "GLOBAL" in line), reason[0])
        raise VerificationError(
            f"{path} holds more than DeepSpeed's state, and none of it was run: {wanted}. It is of "
            "another DeepSpeed version, or it was made to run code"
        ) from error
    return states
