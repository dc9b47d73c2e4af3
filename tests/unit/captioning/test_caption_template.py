from __future__ import annotations

import pytest

from hpc.errors import ConfigError
from sarhpc.captioning.captioners.captioner import Draft
from sarhpc.captioning.config import TemplateConfig
from sarhpc.captioning.template import compose, fill

META = {"key": "00000000007", "band": "X", "pixel_m": 0.35, "incidence_deg": 45.2}
DRAFT = Draft("a river crosses farmland. a road follows it.", ("a village lies in the far range",))


def test_lengths_add_sentences_then_relations_then_metadata() -> None:
    captions = compose(DRAFT, META, TemplateConfig())
    middle = "a river crosses farmland; a road follows it; a village lies in the far range"
    assert captions.variants == {
        "SHORT": "a river crosses farmland",
        "MID": middle,
        "LONG": f"{middle}, X-band, 0.35 m, incidence 45 degrees",
    }
    assert captions.text == "An aerial view of a river crosses farmland"


def test_the_activation_phrase_and_the_length_are_configuration() -> None:
    cfg = TemplateConfig(token="<SAR>", pattern="{caption}, {token}, {band} band", variant="MID")
    text = compose(Draft("a lake"), META, cfg).text
    assert text == "a lake, <SAR>, X band"


def test_a_prompt_uses_the_template_with_another_phrase() -> None:
    cfg = TemplateConfig()
    assert fill(cfg.pattern, "A SAR image of", "a forest") == "A SAR image of a forest"


def test_metadata_a_sample_lacks_leave_no_trace() -> None:
    meta = {"key": "00000000007", "band": None, "pixel_m": 2.5}
    assert compose(Draft("a lake"), meta, TemplateConfig()).long == "a lake, 2.5 m"


def test_metadata_dropout_depends_on_the_key_alone_and_keeps_its_rate() -> None:
    cfg = TemplateConfig(metadata_dropout=0.2)
    longs = [
        compose(Draft("a lake"), META | {"key": f"{number:011d}"}, cfg).long
        for number in range(2000)
    ]
    again = compose(Draft("a lake"), META | {"key": f"{1234:011d}"}, cfg).long
    assert longs[1234] == again
    for phrase in ("X-band", "0.35 m", "incidence 45 degrees"):
        assert 0.17 < sum(phrase not in text for text in longs) / 2000 < 0.23


@pytest.mark.parametrize(
    "cfg",
    [
        TemplateConfig(pattern="{token} {captoin}"),
        TemplateConfig(pattern="{token} {"),
        TemplateConfig(variant="TINY"),
        TemplateConfig(metadata=["{height} m high"]),
    ],
)
def test_a_template_that_cannot_be_filled_is_a_configuration_error(cfg: TemplateConfig) -> None:
    with pytest.raises(ConfigError):
        compose(Draft("a lake"), META, cfg)
