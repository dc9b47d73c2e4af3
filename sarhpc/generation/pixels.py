"""What a generated image says of its pixels: from the contract of its model, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sarhpc.generation.config import GenerateConfig
from sarhpc.shards.contract import PixelContract, only
from sarhpc.shards.images import encode_array, encode_gray8
from sarhpc.shards.radiometry import LEVEL_MASTER, encode_levels

CONTRACT = "contract"
"""Entry of a shard's inputs: the contract of its model as JSON, or null."""


def planned_contract(inputs: Mapping[str, Any]) -> PixelContract | None:
    """The contract in the inputs of a planned shard, if its model has one.

    Raises:
        DataError: it is damaged, or of a later version.
    """
    value = inputs.get(CONTRACT)
    return None if value is None else PixelContract.from_json(value, "the contract in the plan")


def pixel_metadata(inputs: Mapping[str, Any], cfg: GenerateConfig) -> dict[str, Any]:
    """Entries of `meta.json` about pixels; null where the contract does not say.

    A shard that was planned before contracts says what its siblings say.
    """
    if CONTRACT not in inputs:
        return {"pixel_m": cfg.pixel_m, "range_direction": "+col"}
    contract = planned_contract(inputs)
    if contract is None:
        return {"pixel_m": None, "range_direction": None, "contract_sha": None}
    law, span = contract.law, contract.normalisation
    absolute = span is not None and span.law is not None
    floor = contract.level_floor
    return {
        "pixel_m": only(contract.pixel_m),
        "range_direction": contract.range_direction,
        "plane": contract.plane,
        "look_side": only(contract.look_side),
        "band": only(contract.band),
        "polarization": only(contract.polarization),
        "incidence_deg": only(contract.incidence_deg),
        "normalisation": None if law is None else law.to_json(),
        # In units of the constants of a scene that nobody knows, amplitude is not calibrated.
        "calibration": contract.calibration if absolute else law and "none",
        "master_law": LEVEL_MASTER,
        **({} if floor is None else {"master_floor": floor}),
        "contract_sha": contract.sha256,
    }


def pixel_members(
    image: NDArray[np.float32], *, master: bool, floor: float = 0.0
) -> dict[str, bytes]:
    """Members of an image (H, W, 3) in [0, 1]: the 8-bit picture, and the 16-bit master.

    The master holds the levels as the decoder gave them, never rounded to 8 bits, but for those
    below `floor`, which stands for them.
    """
    gray = image.mean(axis=2)
    members = {"sar.png": encode_gray8(np.round(gray * 255).astype(np.uint8))}
    if master:
        members["sar16.npy"] = encode_array(encode_levels(gray, floor))
    return members
