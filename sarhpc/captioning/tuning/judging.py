"""Scores of the captions of held-out images, for each set of them and over all sets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from hpc.job.agreement import RankGroup
from sarhpc.captioning.captioners.blip import Blip
from sarhpc.captioning.captioners.writer import WritingCaptioner
from sarhpc.captioning.config import CaptionTrainConfig
from sarhpc.captioning.meteor import meteor, missing_meteor
from sarhpc.captioning.metrics import caption_metrics
from sarhpc.captioning.tuning.datasets import CaptionedImage
from sarhpc.captioning.tuning.mixture import ImageSet
from sarhpc.captioning.tuning.ranks import StopCheck, divide_work
from sarhpc.shards.subset import spread

TOGETHER = "all sets"
"""Name of the scores over all held-out sets, where there are several."""

Scores = dict[str, float]


@dataclass(frozen=True)
class Judged:
    """Scores by set, those of all sets first, and every caption with its image."""

    scores: Mapping[str, Scores]
    captions: Sequence[tuple[CaptionedImage, str]]

    @property
    def overall(self) -> Scores:
        """Scores over everything held out; empty where nothing is."""
        return next(iter(self.scores.values()), {})


@dataclass(frozen=True)
class CaptionEvaluator:
    """The held-out images by set, and how captions of them are scored."""

    parts: Mapping[str, Sequence[CaptionedImage]]
    """Images of each set, by its name and split; empty where nothing is measured."""
    cfg: CaptionTrainConfig
    without_meteor: str | None = None
    """Why METEOR is not measured; None where it is."""

    @property
    def images(self) -> dict[str, int]:
        """Number of images of each score, by its name."""
        counts = {name: len(part) for name, part in self.parts.items()}
        return {TOGETHER: sum(counts.values()), **counts}

    def judge(self, blip: Blip, ranks: RankGroup, check_stop: StopCheck) -> Judged:
        """Scores of the captions of `blip` against all references of an image. Collective.

        Raises:
            StopRequestedError: a stop was requested meanwhile.
        """
        whole = [image for part in self.parts.values() for image in part]
        if not whole:
            return Judged({}, [])
        captions = self._captions(blip, whole, ranks, check_stop)
        scores = ranks.broadcast(self._scores(captions) if ranks.rank == 0 else {})
        return Judged(scores, list(zip(whole, captions, strict=True)))

    def _captions(
        self,
        blip: Blip,
        images: Sequence[CaptionedImage],
        ranks: RankGroup,
        check_stop: StopCheck,
    ) -> list[str]:
        """Captions of `images`, which the ranks divide, by `blip`."""
        blip.model.eval()
        captioner = open_writer(blip, self.cfg)

        def write(part: Sequence[CaptionedImage]) -> list[str]:
            return captioner.caption([image.read() for image in part])

        captions = divide_work(ranks, list(chunks(images, self.cfg.batch)), write, check_stop)
        return [text for texts in captions for text in texts]

    def _scores(self, everything: Sequence[str]) -> dict[str, Scores]:
        captions = iter(everything)
        by_set = {name: [next(captions) for _ in part] for name, part in self.parts.items()}
        scores = {name: self._score(by_set[name], part) for name, part in self.parts.items()}
        if len(scores) > 1:
            whole = [image for part in self.parts.values() for image in part]
            scores = {TOGETHER: self._score(everything, whole), **scores}
        return scores

    def _score(self, captions: Sequence[str], images: Sequence[CaptionedImage]) -> Scores:
        wanted = [image.captions for image in images]
        scores = caption_metrics(captions, wanted)
        if self.without_meteor is None:
            scores["meteor"] = meteor(captions, wanted)
        return scores


def make_evaluator(held: Sequence[ImageSet], cfg: CaptionTrainConfig) -> CaptionEvaluator:
    """Evaluator over at most `cfg.eval_images` images of each set, evenly from first to last."""
    parts: dict[str, Sequence[CaptionedImage]] = {}
    for one in held:
        images = spread(one.images, cfg.eval_images)
        if images:
            name = f"{one.counts.name} {one.counts.split}"
            count = sum(known == name or known.startswith(f"{name} (") for known in parts)
            parts[name if not count else f"{name} ({count + 1})"] = images
    return CaptionEvaluator(
        parts, cfg, missing_meteor() if cfg.meteor else "caption_train.meteor is not set"
    )


def open_writer(blip: Blip, cfg: CaptionTrainConfig) -> WritingCaptioner:
    """A captioner that writes with `blip` as the fine-tuning is evaluated."""
    return WritingCaptioner(
        blip,
        batch=cfg.batch,
        max_tokens=cfg.max_tokens,
        beams=cfg.eval_beams,
        threads=cfg.threads,
        prompt=cfg.prompt,
    )


def chunks(images: Sequence[CaptionedImage], size: int) -> Iterator[Sequence[CaptionedImage]]:
    """`images` in parts of at most `size`."""
    for start in range(0, len(images), size):
        yield images[start : start + size]
