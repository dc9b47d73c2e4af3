"""New captioners and CLIPs are refused for sizes that do not fit each other, by one check."""

from __future__ import annotations

import pytest

from hpc.errors import ConfigError
from sarhpc.captioning.checks import check_model_shape
from sarhpc.captioning.config import BlipModelConfig
from sarhpc.captioning.contrastive.config import ClipModelConfig


@pytest.mark.parametrize("kind", [BlipModelConfig, ClipModelConfig])
def test_sizes_are_multiples_of_patches_and_heads(
    kind: type[BlipModelConfig] | type[ClipModelConfig],
) -> None:
    check_model_shape(kind())
    for wrong in ({"patch_px": 5}, {"vision_heads": 7}, {"text_heads": 0}):
        with pytest.raises(ConfigError, match=rf"is no multiple of new\.{next(iter(wrong))}="):
            check_model_shape(kind(**wrong))
