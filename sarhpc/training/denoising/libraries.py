"""The model libraries, imported once without SciPy.

Diffusers and transformers import `scipy.stats` and `scipy.optimize` wherever SciPy is installed:
540 modules and a fifth of the CPU time in which a rank starts, for schedulers with beta sigmas and
losses of object detection, which no training here uses. Import this module before any other that
imports the two. SciPy itself can be imported as usual afterwards.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module


@contextmanager
def _scipy_hidden() -> Iterator[None]:
    """Hide SciPy from the block, unless a library may have found it already."""
    if {"scipy", "transformers", "diffusers"} & sys.modules.keys():
        yield
        return
    sys.modules["scipy"] = None  # type: ignore[assignment]  # what find_spec takes for absent
    try:
        yield
    finally:
        del sys.modules["scipy"]


with _scipy_hidden():
    # Submodules, as both packages import lazily.
    import_module("transformers.models.clip.modeling_clip")
    import_module("diffusers.models.unets.unet_2d_condition")
    import_module("diffusers.models.autoencoders.autoencoder_kl")
    import_module("diffusers.schedulers.scheduling_ddim")
