"""What tells images of another class in a process that makes shards: the CLIP of the plan."""

from __future__ import annotations

import functools
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hpc.errors import DataError, VerificationError
from hpc.store.rundir import RunDir
from sarhpc.generation.config import GateConfig
from sarhpc.stages.inputs.class_tiles import KEY
from sarhpc.stages.inputs.clip_models import clip_digest, clip_folder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sarhpc.captioning.captioners.clip import ClipScorer
    from sarhpc.generation.other_classes import ClassGate, PlannedClasses
    from sarhpc.generation.plan import ImageRequest
    from sarhpc.shards.radiometry import Normalisation


class OneByOne:
    """Vectors of one image at a time, by one thread of the CPU: the same in every process."""

    def __init__(self, scorer: ClipScorer) -> None:
        self._scorer, self._lock = scorer, threading.Lock()

    def see(self, codes: NDArray[np.uint8], law: Normalisation | None) -> NDArray[np.float32]:
        """Unit vector (D,) of a picture under a law; threads may call it at the same time."""
        from sarhpc.captioning.contrastive.tiles import seen

        picture = seen(codes, {} if law is None else {"normalisation": law.to_json()})
        with self._lock:
            found: NDArray[np.float32] = self._scorer.see([picture])[0]
        return found

    def read(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors (N, D) of texts."""
        return self._scorer.read(texts)


def class_gate(
    run: RunDir, cfg: GateConfig, planned: PlannedClasses, law: Normalisation | None
) -> ClassGate:
    """What tells images of another class in this process; the CLIP is loaded once.

    Args:
        run: in which it is planned.
        cfg: of the gate.
        planned: classes and limits.
        law: of the pictures.

    Raises:
        VerificationError: the CLIP is missing, or another one than was planned with.
    """
    from sarhpc.generation.other_classes import ClassGate

    model = None if cfg.other_class is None else cfg.other_class.model
    folder = clip_folder(run, model)
    try:
        seer = loaded_clip(folder, planned.sha256)
    except (OSError, DataError) as error:
        raise VerificationError(
            f"the CLIP of {KEY} cannot be read from {folder} ({error}): restore it"
        ) from error
    return ClassGate(
        planned,
        functools.partial(seer.see, law=law),
        lambda request: asked_class(request, planned.phrases),
    )


@functools.lru_cache(maxsize=1)
def loaded_clip(folder: Path, sha256: str) -> OneByOne:
    """The CLIP of this digest, kept by a process that makes many shards.

    Raises:
        DataError: it cannot be loaded.
        VerificationError: the folder holds another one.
    """
    from sarhpc.captioning.captioners.clip import ClipScorer, load_clip
    from sarhpc.captioning.captioners.pretrained import model_name

    if clip_digest(folder) != sha256:
        raise VerificationError(
            f"{folder} holds another CLIP than {KEY} was planned with: restore it"
        )
    # On the CPU, also where a GPU samples: limit and images are then measured alike.
    return OneByOne(
        ClipScorer(load_clip(folder), name=model_name(str(folder)), revision=sha256, batch=1)
    )


def asked_class(request: ImageRequest, phrases: Mapping[str, Sequence[str]]) -> str | None:
    """Class that an image should show: its label `class`, else the one that its prompt names.

    None where there is neither, or the prompt is about two classes, as “a lake beside a town”.
    """
    from sarhpc.evaluation.caption_content import class_of, names_two
    from sarhpc.generation.prompts.grammar import land_cover_of

    label = request.labels.get("class")
    if not isinstance(label, str):
        return class_of(request.prompt, phrases)
    if names_two(request.prompt, phrases):
        return None
    return label if label in phrases else land_cover_of(label)
