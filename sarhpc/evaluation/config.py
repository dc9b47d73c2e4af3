"""Configuration of the evaluation."""

from __future__ import annotations

from dataclasses import dataclass, field

from hpc.errors import ConfigError
from sarhpc.evaluation.feature_config import FeaturesConfig, check_features
from sarhpc.evaluation.text_config import TextConfig, check_text
from sarhpc.evaluation.use.config import UseConfig, check_use
from sarhpc.shards.sample import SPLITS

LEAST_PX = 32
"""Smallest side of an image in which speckle and texture are measured."""
MIN_TILES = 4
"""Fewest tiles of a set that can be evaluated."""


@dataclass
class GatesConfig:
    """Bounds that a corpus must keep; null leaves a gate out."""

    enl_ratio: list[float] | None = field(default_factory=lambda: [0.9, 1.1])
    """E1: least and most ENL mode, synthetic over real."""
    level_spread_ratio: list[float] | None = field(default_factory=lambda: [0.8, 1.25])
    """E3: least and most spread of the mean levels of tiles, synthetic over real."""
    w1_db: float | None = 0.5
    """E3: most Wasserstein-1 distance of the histograms of levels beyond the median of its null,
    dB."""
    acf_lag1: float | None = 0.05
    """E4: most difference of the autocorrelation of speckle at lag 1, on either axis."""
    lsd_db: float | None = 2.0
    """E5: most log-spectral distance, dB."""
    unmeasurable: float | None = 0.0
    """Most images, as a share, that cannot be measured: of one value, or with gaps."""
    use_ratio: float | None = field(default=0.8, metadata={"added": True})
    """E12, where it is asked for: least score of networks that learned from synthetic images, over
    that of networks that learned from real ones."""
    use_gain: float | None = field(default=None, metadata={"added": True})
    """E12: least gain of synthetic images beside the smallest share of real labels."""
    manifest: float | None = field(default=1.0, metadata={"added": True})
    """Least share of the images of a corpus that say that they are synthetic, and by which prompt,
    seed, model and configuration they were made."""
    memorised: float | None = field(default=None, metadata={"added": True})
    """E11: most images, as a share, that repeat training tiles, beyond those that do by chance
    (`evaluate.memory.false_alarms`); it needs `evaluate.memory`."""


@dataclass
class MemoryConfig:
    """Copies of training tiles and of each other in a corpus (E11)."""

    false_alarms: float = 0.001
    """Share of images of other ground that may be taken for copies of training tiles."""
    shards: str | None = None
    """Folder of the shards that the model was trained on, searched recursively; null takes the
    tiles of split `train` of the run, or of the real set, and all of a set without splits."""
    images: int = 1_000_000
    """Most images of the corpus that are read, evenly from the first to the last."""
    gib: float = 8.0
    """Most memory for the maps of training tiles and images, GiB: 2.5 for a million."""
    pairs: int = 6
    """Most suspicious images that are shown beside the training tiles they resemble."""
    approximate: bool = field(default=False, metadata={"added": True})
    """Compare images with the tiles of the nearest parts of an inverted file (Faiss), half
    the time for 100,000 tiles; one copy in a hundred that all products find is missed. The limit is
    from all products."""


@dataclass
class EvaluateConfig:
    """Sizes and seeds of the evaluation."""

    real_splits: list[str] = field(default_factory=lambda: ["val", "test"])
    """Splits whose tiles are the reference; `train` is taken where they are empty."""
    tiles: int = 400
    """Most tiles of a synthetic set that are compared; of real ones there are twice as many."""
    bootstrap: int = 200
    """Resamplings over tiles behind each 95 % interval."""
    seed: int = 0
    """Seed of the resampling and of the draws of real tiles against real tiles."""
    gallery: int = 8
    """Real and synthetic tiles shown side by side in the report."""
    all_tiles: bool = field(default=False, metadata={"added": True})
    """Measure every tile of every set into the tables, not only those that are compared."""
    autoencoder_s: float = field(default=600.0, metadata={"added": True})
    """Most seconds to encode and decode real tiles; as many are taken as fit, 0 takes none."""
    orientation_steps: int = field(default=400, metadata={"added": True})
    """Training steps of each of ten small networks that learn the look direction of the real tiles
    (E8); 0 leaves it out."""
    features: FeaturesConfig = field(default_factory=FeaturesConfig, metadata={"added": True})
    """Distances between clouds of features (E9)."""
    use: UseConfig = field(default_factory=UseConfig, metadata={"added": True})
    """E12: what networks learn from real, synthetic and mixed images; left out unless `task` is
    set."""
    text: TextConfig | None = field(default=None, metadata={"added": True})
    """Images compared with their captions by a CLIP (E10); null leaves it out."""
    memory: MemoryConfig | None = field(default=None, metadata={"added": True})
    """Look for images that repeat training tiles or each other (E11); null leaves it out."""
    gates: GatesConfig = field(default_factory=GatesConfig, metadata={"added": True})
    """What the corpus is held to."""
    gates_fail: bool = field(default=False, metadata={"added": True})
    """Whether the stage fails, exit code 4, where the corpus does not pass; it is reported anyway.
    Off, because a run that stopped there would have no other end than a new one."""


def check_config(cfg: EvaluateConfig) -> None:
    """Raise ConfigError unless the evaluation can be carried out.

    Raises:
        ConfigError: too few tiles or resamplings to say anything, or an unknown split.
    """
    least = {"tiles": MIN_TILES, "bootstrap": 2, "gallery": 0}
    for name, low in least.items():
        if getattr(cfg, name) < low:
            raise ConfigError(f"evaluate.{name}={getattr(cfg, name)}: give at least {low}")
    if cfg.orientation_steps < 0 or cfg.orientation_steps == 1:
        raise ConfigError(
            f"evaluate.orientation_steps={cfg.orientation_steps}: give 0 to leave it out, or 2 "
            "or more"
        )
    if not cfg.autoencoder_s >= 0:
        raise ConfigError(f"evaluate.autoencoder_s={cfg.autoencoder_s}: give at least 0")
    check_features(cfg.features)
    if cfg.text is not None:
        check_text(cfg.text)
    for name in ("enl_ratio", "level_spread_ratio"):
        bounds = getattr(cfg.gates, name)
        if bounds is not None and not (len(bounds) == 2 and 0 <= bounds[0] <= bounds[1]):
            raise ConfigError(f"evaluate.gates.{name}={bounds}: give least and most, [0.9,1.1]")
    check_use(cfg.use)
    for name in (
        "w1_db",
        "acf_lag1",
        "lsd_db",
        "unmeasurable",
        "use_ratio",
        "manifest",
        "memorised",
    ):
        most = getattr(cfg.gates, name)
        if most is not None and not most >= 0:
            raise ConfigError(
                f"evaluate.gates.{name}={most}: give a bound of at least 0, or null to leave it out"
            )
    _check_memory(cfg)
    for split in cfg.real_splits:
        if split not in SPLITS:
            raise ConfigError(f"evaluate.real_splits: {split!r} is none of {', '.join(SPLITS)}")


def _check_memory(cfg: EvaluateConfig) -> None:
    memory = cfg.memory
    if memory is None:
        if cfg.gates.memorised is not None:
            raise ConfigError(
                "evaluate.gates.memorised needs the search for copies: set evaluate.memory={}, or "
                "the gate to null"
            )
        return
    if not 0 < memory.false_alarms < 1:
        raise ConfigError(
            f"evaluate.memory.false_alarms={memory.false_alarms}: give a share between 0 and 1"
        )
    for name, least in (("images", MIN_TILES), ("pairs", 0)):
        if getattr(memory, name) < least:
            raise ConfigError(
                f"evaluate.memory.{name}={getattr(memory, name)}: give at least {least}"
            )
    if not memory.gib > 0:
        raise ConfigError(f"evaluate.memory.gib={memory.gib}: give more than 0")
