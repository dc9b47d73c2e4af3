"""Description of a captioner: its name, the check of its settings, and how it is opened."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hpc.errors import ConfigError
from sarhpc.captioning.captioners.captioner import Captioner, Drafter
from sarhpc.captioning.config import CaptionConfig


def refuse_clip(cfg: CaptionConfig) -> None:
    """Raise ConfigError if CLIP is to select among captions of a captioner that sees no image."""
    if cfg.clip is not None:
        raise ConfigError(
            f"caption.clip selects captions of an image, and captioner={cfg.captioner} looks at "
            "none: take captioner=blip, git or clip, or leave out caption.clip."
        )


@dataclass(frozen=True)
class CaptionerSpec:
    """One captioner as the configuration, the caption stage and its workers need to know it."""

    name: str
    """Value of `caption.captioner`."""
    open: Callable[[CaptionConfig], Captioner | Drafter]
    """The captioner, loaded and ready; imports its model's libraries when called."""
    check: Callable[[CaptionConfig], None] = refuse_clip
    """Raises ConfigError unless its settings are consistent; called before submission."""
    uses_model: bool = False
    """Whether it loads `caption.model`."""
