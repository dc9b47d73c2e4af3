"""What the dataset card says of pixels: from the contract of the model, and nothing else."""

from __future__ import annotations

from sarhpc.shards.contract import PixelContract, describe


def pixel_texts(contract: PixelContract | None) -> dict[str, str]:
    """The line of the card about the 16-bit master, and its section on what a pixel means."""
    if contract is None:
        return {"master": "", "pixels": _UNKNOWN}
    rows = "\n".join(f"| {name} | {value} |" for name, value in describe(contract).items())
    sigma0 = _SIGMA0 if contract.is_calibrated else ""
    return {"master": _MASTER, "pixels": _KNOWN.format(rows=rows) + sigma0}


_UNKNOWN = """\
Not known: the model has no contract, and no grey level stands for an amplitude. Where spacing and
direction of range are given above, the configuration stated them."""

_MASTER = "- `sar16.npy`: the same as the decoder gave it, 16 bits: code / 65535 is the level;\n"

_KNOWN = """\
By the contract of the model (`contract.json`), which follows from the tiles it was trained on. What
differed among them is a range here and null in `meta.json`.

| of the tiles | |
|---|---|
{rows}"""

_SIGMA0 = """

```python
from pathlib import Path

import numpy

from sarhpc.shards.contract import read_contract, sigma0_db

contract = read_contract(Path.cwd())
level_db = sigma0_db(numpy.full((1, 1), 65535, numpy.uint16), contract)  # of any `sar16.npy`
```"""
