"""The configuration of a run: one tree, one branch per package."""

from __future__ import annotations

from dataclasses import dataclass, field

from sarhpc.archive.config import ArchiveConfig
from sarhpc.archive.procedural.config import ProceduralConfig
from sarhpc.captioning.config import CaptionConfig, CaptionTrainConfig
from sarhpc.captioning.contrastive.config import ClipTrainConfig
from sarhpc.evaluation.config import EvaluateConfig
from sarhpc.generation.config import GenerateConfig, PriorImagesConfig
from sarhpc.generation.sources.config import ImageToImageConfig
from sarhpc.tiling.config import ImportConfig, OpticalConfig, TileConfig
from sarhpc.training.config import EncodeConfig, ExportConfig, TrainConfig


@dataclass
class ClusterConfig:
    """How work reaches machines; it does not change what is made."""

    executor: str = "local"
    """`slurm`, `local` (processes of this machine, through submitit) or `debug` (this process)."""
    profile: str | None = None
    """Profile of the cluster, a name in slurm/profiles or a YAML file; as `--profile`."""
    workers: int = 2
    """Dask worker processes of the sharded stages."""
    ranks: int = 2
    """Processes of the training stage."""
    time_min: int = 720
    """Time limit of one job, minutes."""
    node_local: str | None = None
    """Folder on a disk of the node, such as `$SLURM_TMPDIR`, to which training copies its shards
    first if they fit; variables are filled in by the job. Null reads them in place."""
    quota_gb: float | None = None
    """GB that the run may still write below `data`, where that is less than the file system and
    Lustre's quota say; null: what those say."""
    quota_inodes: int | None = None
    """Files that the run may still create there, likewise."""


@dataclass
class CompareConfig:
    """Other models that generate the same prompts, for the report."""

    models: dict[str, str] = field(default_factory=dict)
    """Name of the column -> diffusers folder, or `embedded:NAME`."""
    images: int = 32
    """Images of each model."""
    image_to_image: ImageToImageConfig | None = field(default=None, metadata={"added": True})
    """Also begin some images of the run's model with others, with the texts beside those, and say
    in the report how much of them is kept; null leaves it out."""


@dataclass
class RunConfig:
    """The configuration of a run."""

    data: str = "data"
    """Folder of the archive and the shards; a relative path is below the run directory. On a
    cluster this belongs on scratch."""
    simulate: ProceduralConfig | None = None
    """The procedural archive to write first; null when `archive.uri` names a real one."""
    archive: ArchiveConfig = field(default_factory=ArchiveConfig)
    """The archive, and which of its scenes to use."""
    tile: TileConfig = field(default_factory=TileConfig)
    """Scenes to tiles."""
    imported: ImportConfig | None = None
    """Third-party images to import instead of tiles; no archive is read."""
    optical: OpticalConfig | None = None
    """Pair the tiles with other optical images, as a stage; null keeps those cut with them."""
    caption_train: CaptionTrainConfig | None = None
    """Fine-tuning of the captioner before captioning; null captions with the model as it is."""
    caption: CaptionConfig = field(default_factory=CaptionConfig)
    """Tiles to captioned samples."""
    clip_train: ClipTrainConfig | None = field(default=None, metadata={"added": True})
    """Fine-tuning of a CLIP on the captioned tiles, which then reads images and captions in the
    evaluation; null trains none."""
    encode: EncodeConfig | None = None
    """Encode the tiles to train on once, as a stage; null encodes them while training."""
    prior: PriorImagesConfig | None = field(default=None, metadata={"added": True})
    """Generate regularisation images with the base model first, as a stage; `train.prior={}`
    trains on them. Null makes none."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """Fine-tuning of the diffusion model."""
    export: ExportConfig = field(default_factory=ExportConfig)
    """What the exported model holds."""
    generate: GenerateConfig | None = field(default_factory=GenerateConfig)
    """The synthetic corpus; null ends the line at the exported model."""
    compare: CompareConfig = field(default_factory=CompareConfig)
    """Other models beside the trained one."""
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    """Real against synthetic."""
    cluster: ClusterConfig = field(default_factory=ClusterConfig, metadata={"transient": True})
    """Where and how wide."""
