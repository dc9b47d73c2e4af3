"""The captioners by their names in the configuration; plug-ins join by an entry point."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points

from hpc.errors import ConfigError
from sarhpc.captioning.captioners.captioner import Captioner, Drafter
from sarhpc.captioning.captioners.generated import BLIP, GIT
from sarhpc.captioning.captioners.given import GIVEN
from sarhpc.captioning.captioners.phrases import CLIP
from sarhpc.captioning.captioners.spec import CaptionerSpec
from sarhpc.captioning.captioners.truth import TRUTH
from sarhpc.captioning.config import CaptionConfig

ENTRY_POINTS = "sarhpc.captioners"
"""Group of entry points through which an installed package adds a captioner."""
DTYPES = (None, "float32", "float16", "bfloat16")


@functools.cache
def captioners() -> Mapping[str, CaptionerSpec]:
    """All captioners by name: those of this package, then installed plug-ins by name.

    Raises:
        ConfigError: a plug-in does not load, is no `CaptionerSpec`, or takes a name in use.
    """
    specs = {spec.name: spec for spec in (BLIP, GIT, CLIP, TRUTH, GIVEN)}
    for point in sorted(entry_points(group=ENTRY_POINTS), key=lambda point: point.name):
        spec = _loaded(point)
        if spec.name in specs:
            raise ConfigError(
                f"captioner plug-in {point.name!r} ({point.value}) is called {spec.name!r}, as "
                "another captioner is; remove one of the two packages"
            )
        specs[spec.name] = spec
    return specs


def _loaded(point: EntryPoint) -> CaptionerSpec:
    try:
        loaded = point.load()
    except Exception as error:  # it runs the package's own code
        raise ConfigError(
            f"captioner plug-in {point.name!r} ({point.value}) does not load: {error}; reinstall "
            "the package it comes from"
        ) from error
    if not isinstance(loaded, CaptionerSpec):
        raise ConfigError(
            f"captioner plug-in {point.name!r} ({point.value}) is a {type(loaded).__name__}, not "
            "a sarhpc.captioning.captioners.spec.CaptionerSpec; correct the entry point"
        )
    return loaded


def captioner_of(cfg: CaptionConfig) -> CaptionerSpec:
    """The captioner that `cfg` names.

    Raises:
        ConfigError: there is no such captioner.
    """
    known = captioners()
    if cfg.captioner not in known:
        raise ConfigError(
            f"caption.captioner={cfg.captioner!r} is unknown: take one of {', '.join(known)}."
        )
    return known[cfg.captioner]


def require_consistent(cfg: CaptionConfig) -> None:
    """Raise ConfigError unless the captioner of `cfg` exists and its settings are consistent.

    Raises:
        ConfigError: they are not; names the setting and the accepted values.
    """
    captioner = captioner_of(cfg)
    if cfg.dtype not in DTYPES:
        raise ConfigError(f"caption.dtype={cfg.dtype!r}: take float32, float16, bfloat16 or null.")
    captioner.check(cfg)


def open_captioner(cfg: CaptionConfig) -> Captioner | Drafter:
    """The captioner `cfg` names, loaded and ready; `caption_samples` takes either kind.

    Raises:
        ConfigError: no such captioner, or inconsistent settings.
        DataError: its model cannot be loaded.
    """
    require_consistent(cfg)
    return captioner_of(cfg).open(cfg)
