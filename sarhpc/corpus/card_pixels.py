"""What the dataset card says of pixels: from the contract of the model, and nothing else."""

from __future__ import annotations

from sarhpc.shards.contract import PixelContract, describe


def pixel_texts(contract: PixelContract | None) -> dict[str, str]:
    """The line of the card about the 16-bit master, and its section on what a pixel means."""
    if contract is None:
        return {"master": "", "pixels": _UNKNOWN}
    rows = "\n".join(f"| {name} | {value} |" for name, value in describe(contract).items())
    sigma0 = _SIGMA0 if contract.is_calibrated else ""
    floor = contract.level_floor
    least = "" if floor is None else _FLOOR.format(floor=floor)
    return {"master": _MASTER.format(least=least), "pixels": _KNOWN.format(rows=rows) + sigma0}


_UNKNOWN = """\
Not known: the model has no contract, and no grey level stands for an amplitude. Where spacing and
direction of range are given above, the configuration stated them."""

_MASTER = (
    "- `sar16.npy`: the same as the decoder gave it, 16 bits: code / 65535 is the level{least};\n"
)

_FLOOR = """,
  at least {floor:.3g}, half a step of the 8-bit pictures of the tiles, which tell nothing of
  what is darker"""

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
