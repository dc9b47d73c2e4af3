"""Configuration of tiling: tile size and spacing, normalisation, quality limits, split."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Optional


@dataclass
class SplitConfig:
    """How the ground is divided between training, validation and test."""

    fractions: list[float] = field(default_factory=lambda: [0.8, 0.1, 0.1])
    """Shares of the coarse cells that go to train, val and test; they sum to 1."""

    cell_m: float = 2000.0
    """Side of the coarse cells of the Earth that are assigned as a whole, metres. The default is
    raised to ten sides of the largest tiles, where these are longer than 200 m; any other value
    stays."""

    buffer_m: Optional[float] = None  # noqa: UP045 - OmegaConf reads Optional
    """Tiles closer than this to a cell of another split are dropped, metres. Null takes half the
    diagonal of a tile, which keeps tiles of different splits a whole diagonal apart."""

    by: str = "cell"
    """What goes to one split as a whole: `cell`, a coarse cell of the Earth; `line`, all scenes of
    a flight line together with all others that come within the buffer of them, however far that
    reaches; `cell+line`, the tiles whose cell and flight line fall into the same split."""

    line_property: str = "sarhpc:flight_line"
    """Property that names a scene's flight line (or orbit); a scene without it is its own line."""

    seed: int = 0
    """Seed of the assignment of cells."""


@dataclass
class CrossBandConfig:
    """Which radar image the cross-band layer `other` shows (docs/scenes.md)."""

    band: Optional[str] = None  # noqa: UP045
    """Radar band of its scene; null takes any."""

    polarization: Optional[str] = None  # noqa: UP045
    """Polarisation of its scene; null takes any."""

    max_days: Optional[float] = None  # noqa: UP045
    """Largest gap between both acquisitions, days; null accepts any, and unknown ones."""

    min_coverage: float = 0.9
    """Least share of a tile that its data must cover."""


@dataclass
class TileConfig:
    """Scenes to tiles; the defaults are the paper's geometry (512 pixels of 0.35 m)."""

    tile_px: int = 512
    """Side of a tile, pixels."""

    stride_px: Optional[int] = None  # noqa: UP045
    """Distance between neighbouring tiles, pixels; null takes `tile_px` (no overlap)."""

    pixel_m: Optional[float] = 0.35  # noqa: UP045
    """Ground spacing of tile pixels, metres; null keeps the scene's own and resamples nothing."""

    plane: str = field(default="ground", metadata={"added": True})
    """Plane in which `pixel_m` is measured: `ground`, or `slant`, that in which complex images are
    formed (SARLO-80 has 0.8 m both ways in it). Tiles of both are not to be mixed."""

    allow_upsampling: bool = False
    """Accept scenes whose spacing is more than 1.5 times `pixel_m`. Tiles then look
    sharper than the sensor resolves."""

    detect_first: bool = False
    """Detect complex scenes and average their intensity, as for amplitude, where the default crops
    the spectrum. Looks rise, and no complex tile is left."""

    transition: float = 0.1
    """Share of the output band over which the band-limiting filter rolls off. Smaller keeps more
    resolution and needs a longer halo (halo = 2.75 / (transition * cut-off) native pixels)."""

    normalisation: str = "mu+3sigma"
    """Law of the 8-bit picture. `mu+3sigma` and `percentile` are linear in amplitude up to a top
    measured per scene; `db`, `log` and `log1p` are logarithmic between `db_window` (or the window
    that `db_scope` chooses), `log_range` or `log1p_range`, the same for all scenes."""

    percentile: float = 99.9
    """Percentile of amplitude used by `normalisation=percentile`, and for the top of `db` without
    `db_window`."""

    db_window: Optional[list[float]] = None  # noqa: UP045
    """Of `normalisation=db`: sigma0 of codes 0 and 255, dB. Null takes the 1st and the
    `percentile` percentile of each scene."""

    db_scope: str = field(default="scene", metadata={"added": True})
    """Of `normalisation=db` without `db_window`: `scene` takes percentiles of each scene; `archive`
    one window for all scenes, above which less than 0.1 % of their power is lost."""

    log_range: list[float] = field(default_factory=lambda: [-1.4293, 10.089])
    """Of `normalisation=log`: ln(amplitude) of codes 0 and 255. The default is that of MERLIN
    (Dalsasso et al., 2022) for TerraSAR-X in counts."""

    log1p_range: list[float] = field(default_factory=lambda: [0.15, 2.39])
    """Of `normalisation=log1p`: ln(1 + log1p_gain * sigma0) of codes 0 and 255. The default is
    that of the NA-SAR set for co-polarised C band."""

    log1p_gain: float = 20.0
    """Of `normalisation=log1p`: factor on sigma0 within the logarithm."""

    master: str = "linear"
    """Law of the 16-bit master: `linear` in amplitude (sigma0 within 0.01 dB down to 43 dB below
    the brightest pixel of a tile), or `log` (within 0.001 dB over 131 dB)."""

    survey_mpx: float = 8.0
    """Scenes up to this size (megapixels at tile spacing) are normalised from all their pixels,
    larger ones from an even sample of this size."""

    min_valid: float = 0.95
    """Least share of valid pixels in a tile."""

    max_saturated: float = 0.05
    """Largest share of valid pixels above the amplitude of code 255."""

    min_signal: float = 0.002
    """Least mean amplitude of a tile in units of the amplitude of code 255; below half an 8-bit
    code nothing is left to see. With `db_scope=archive` its level in the window, 0 to 1."""

    screen: bool = field(default=False, metadata={"added": True})
    """Reject tiles that show no ground: `noise` (mean power within 1 dB of the noise floor, where
    the file states it), `interference` (a bright line over the whole tile, or a narrow line in its
    spectrum), `clipped` (many pixels at one largest value)."""

    allow_uncalibrated: bool = False
    """Accept scenes of unknown calibration; their tiles carry `calibration: none`."""

    min_optical_coverage: float = 0.9
    """Least share of a tile that optical imagery must cover to be cut for it."""

    max_optical_delta_days: Optional[float] = None  # noqa: UP045
    """Largest gap between radar and optical acquisition, days; null accepts any."""

    require_optical: bool = False
    """Reject tiles without an optical image instead of keeping them without one."""

    conditions: list[str] = field(default_factory=list)
    """Conditioning layers made for every tile: `edges` (edges.png), `segmentation`
    (segmentation.png, from land cover), `coarse` (coarse.png), `optical` (optic.png is there),
    `other` (other.png, the cross-band layer: another radar image of the ground as `tile.other`
    selects it). Tiles for which one cannot be made are rejected."""

    coarse_factor: int = 4
    """Pixels along each axis that are averaged for `coarse`."""

    other: Optional[CrossBandConfig] = field(default=None, metadata={"added": True})  # noqa: UP045
    """Which scenes may serve the cross-band layer: band, polarisation, gap in time."""

    write_complex: bool = False
    """Add `sar.npy`, the calibrated complex tile, where the scene is complex."""

    fingerprints: bool = False
    """Add `content_digest` and `ground_hash` to the metadata, by which exact copies and the same
    ground under other speckle are found."""

    dedupe: bool = False
    """Leave out duplicate tiles: exact copies, the same ground in the same band and polarisation
    under new speckle, and across splits all images of the same ground. The tile shards keep them;
    captioning leaves them out as `duplicate_of`. Implies `fingerprints`."""

    shard_samples: int = 256
    """Tiles planned per shard."""

    block_tiles: int = 2
    """Tiles along each side of the block that is read and resampled at once. Larger blocks share
    more of their halo, but exceed the cache: 2 was fastest, and takes 150 MB at 512 pixels
    from 0.2 m complex data."""

    max_tiles: Optional[int] = None  # noqa: UP045
    """Tiles planned at most over the whole archive; null plans all."""

    split: SplitConfig = field(default_factory=SplitConfig)
    """The geographic split."""


@dataclass
class OpticalConfig:
    """Optical images for existing tiles, found by place and time: the stage `optical`."""

    uri: Optional[str] = None  # noqa: UP045
    """Catalogue of optical images, or a folder of georeferenced rasters; null takes the optical
    assets of the run's own archive."""

    min_coverage: float = 0.9
    """Least share of a tile that optical imagery must cover; adjacent images are mosaicked."""

    max_cloud: float = 0.1
    """Largest cloud share: of the covered part of the tile by the mask of an image, or of the whole
    image by `eo:cloud_cover` where it has no mask. Images without either pass."""

    cloud_codes: list[int] = field(default_factory=list)
    """Values of the mask that say cloud or its shadow; empty takes every value but 0. For the scene
    classification of Sentinel-2: [3, 8, 9, 10]."""

    max_delta_days: Optional[float] = None  # noqa: UP045
    """Largest gap between radar and optical acquisition, days; null accepts any, and unknown ones.
    Of several images the nearest in time is taken."""

    dem: Optional[str] = None  # noqa: UP045
    """Height raster, m. The optical image is then displaced along range as terrain displaces the
    radar image, by (height - reference) cot(incidence). Null keeps its map position."""

    reference_height_m: Optional[float] = None  # noqa: UP045
    """Height to which the radar images were projected, m; null takes the mean under each tile."""


@dataclass
class ImportConfig:
    """Third-party images imported in place of tiles (docs/foreign.md)."""

    path: str = "???"
    """Folder of pictures with texts, folder of WebDataset tars, or one tar."""

    fractions: list[float] = field(default_factory=lambda: [0.9, 0.1, 0.0])
    """Shares that go to train, val and test, drawn by name; folders of these names win."""

    val_of_train: float = field(default=0.0, metadata={"added": True})
    """Share of the images of folders named train that goes to val instead, drawn by name or by
    `group`: sets that come as train and test alone have nothing else to choose settings with."""

    group: Optional[str] = None  # noqa: UP045
    """Entry of the images' metadata (a city, a scene); images of one value go to one split.
    Without it neighbours may fall into different splits, since no position is known."""

    scene_per_folder: bool = field(default=False, metadata={"added": True})
    """Images of one folder, in a tar too, are of one scene: comparisons keep them on one side, and
    look direction and intervals can be judged. The split is drawn by name all the same."""

    classes: Optional[dict[str, str]] = field(default=None, metadata={"added": True})  # noqa: UP045
    """Folder -> words: images below a folder of that name, in a tar too, are of the class that it
    names, and images without a text are described by its words; others are left out. Null: folders
    name no classes."""

    seed: int = 0
    """Seed of the draw."""

    px: Optional[int] = None  # noqa: UP045
    """Side of the tiles, pixels, cut from the middle of larger images; smaller ones are left out.
    Null keeps their size. Nothing is resampled."""

    cut: str = field(default="centre", metadata={"added": True})
    """Of `px`: `centre` cuts one tile from the middle of each image, `grid` as many as fit side by
    side (four of 512 from 1,024 pixels)."""

    quantity: Optional[str] = field(default=None, metadata={"added": True})  # noqa: UP045
    """Meaning of pixels of more than 8 bits: `amplitude`, `intensity` or `db`; null is
    amplitude."""

    level_scope: str = field(default="image", metadata={"added": True})
    """Of images of more than 8 bits: `image` normalises the picture of each by itself, `set` all by
    one law, measured on 256 of them, so that a dark tile stays darker than a bright one. `set`
    prefers `sar.npy` to an 8-bit `sar.png` beside it."""

    colour: str = "reject"
    """Coloured pictures: `reject` leaves them out, `luma` keeps their luminance."""

    band: Optional[str] = None  # noqa: UP045
    """Radar band of all images, where known."""

    polarization: Optional[str] = None  # noqa: UP045
    """Polarisation of all images, where known."""

    platform: Optional[str] = None  # noqa: UP045
    """Platform of all images, where known."""

    pixel_m: Optional[float] = None  # noqa: UP045
    """Spacing of pixels, metres, where known."""

    plane: Optional[str] = field(default=None, metadata={"added": True})  # noqa: UP045
    """Plane of the spacing along range, `ground` or `slant`, where known."""

    incidence_deg: Optional[float] = None  # noqa: UP045
    """Angle of incidence of all images, degrees, where known."""

    licence: Optional[str] = field(default=None, metadata={"added": True})  # noqa: UP045
    """Licence of all images, an SPDX identifier where there is one."""

    range_direction: Optional[str] = None  # noqa: UP045
    """Axis along which slant range grows in the images: `+col`, `-col`, `+row` or `-row`. Images
    and layers are turned so that near range is at column 0. Null is unknown: nothing is turned."""

    synthetic: bool = False
    """The images were generated. Images whose metadata say so are marked in any case."""

    shard_samples: int = 256
    """Images planned per shard."""
