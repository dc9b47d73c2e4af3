"""Average and skipped steps of a caption fine-tuning: their checks, and what the trainer gets."""

from __future__ import annotations

from typing import Any

import pytest

from hpc.config import fingerprint, loads
from hpc.errors import ConfigError
from sarhpc.captioning.checks import check_fine_tuning
from sarhpc.captioning.config import CaptionTrainConfig
from sarhpc.stages.caption_train import CAPTION_TRAIN, loop_config
from sarhpc.stages.config import RunConfig

SETS = "caption_train.train=[{path: /data/rsicd, kind: rsicd}]"
WORDS = ["caption_train.steps=5", "caption_train.zero_stage=2", SETS]


PUBLISHED = "Salesforce/blip-image-captioning-base"  # the default of then


def stage_fingerprint(*words: str) -> str:
    model = f"caption_train.base_model={PUBLISHED}"
    return CAPTION_TRAIN.fingerprint(loads(RunConfig, "{}", [*WORDS, model, *words]))


def test_configurations_without_the_options_keep_their_fingerprints() -> None:
    published = CaptionTrainConfig(base_model=PUBLISHED)
    assert fingerprint(published) == "d893db57e9e83148"
    assert stage_fingerprint() == "50bac57507fc5db7"
    assert stage_fingerprint("caption_train.ema_decay=0.0") == "50bac57507fc5db7"


def test_the_average_enters_the_fingerprint_and_what_is_skipped_does_not() -> None:
    assert stage_fingerprint("caption_train.ema_decay=0.9") != stage_fingerprint()
    # As for `train`: a run that stopped may be resumed with other limits.
    limits = ("on_nonfinite=skip", "skip_in_a_row=1", "skip_in_all=2")
    assert stage_fingerprint(*(f"caption_train.{one}" for one in limits)) == stage_fingerprint()


def test_the_trainer_gets_them_and_reports_no_decay_by_default() -> None:
    usual = loop_config(CaptionTrainConfig(), 1)
    assert usual.ema_decay is None
    assert (usual.on_nonfinite, usual.skip_in_a_row, usual.skip_in_all) == ("stop", 5, 100)
    given = CaptionTrainConfig(ema_decay=0.99, on_nonfinite="skip", skip_in_a_row=2, skip_in_all=7)
    options = loop_config(given, 1)
    assert (options.ema_decay, options.on_nonfinite) == (0.99, "skip")
    assert (options.skip_in_a_row, options.skip_in_all) == (2, 7)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ema_decay": 1.0}, "ema_decay=1.0 is outside [0, 1); 0 keeps no average"),
        ({"ema_decay": -0.1}, "ema_decay=-0.1 is outside [0, 1); 0 keeps no average"),
        ({"on_nonfinite": "ignore"}, "on_nonfinite='ignore': use one of stop, skip"),
        ({"skip_in_a_row": 0}, "skip_in_a_row=0: allow 1 or more, or on_nonfinite=stop"),
        ({"skip_in_all": 0}, "skip_in_all=0: allow 1 or more, or on_nonfinite=stop"),
    ],
)
def test_values_without_meaning_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_fine_tuning(CaptionTrainConfig(**changes))
    assert message in str(caught.value)
