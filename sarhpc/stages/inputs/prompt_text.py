"""The text of a prompt: a description in the words of the captions that the model learnt."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

from hpc.errors import ConfigError
from sarhpc.captioning.captioners.captioner import Draft
from sarhpc.captioning.template import asks_token, compose
from sarhpc.generation.config import GenerateConfig
from sarhpc.generation.plan import within_template
from sarhpc.shards.condition_texts import metadata_values
from sarhpc.stages.config import RunConfig

if TYPE_CHECKING:
    from sarhpc.generation.prompts.row import Label

_PLACEHOLDERS = {"{band}": "band", "{gsd}": "spacing_m", "{incidence}": "incidence_deg"}
"""Placeholder of `prompt_template` -> label that fills it."""


def prompt_template(config: RunConfig) -> str:
    """The prompt template of a run; the prompt alone where neither it nor captions have a token.

    Texts that came along are trained on as they are, so they are asked for as they are, unless
    a template was set.
    """
    generate = config.generate
    assert generate is not None
    unset = generate.prompt_template == type(generate)().prompt_template
    if config.caption.captioner == "given" and unset and not asks_token(config.caption.template):
        return "{prompt}"
    return generate.prompt_template


class PromptWriter:
    """Prompts of one run: its caption template within its prompt template."""

    def __init__(self, config: RunConfig) -> None:
        """For the captions and the prompt template of `config`."""
        assert config.generate is not None
        self._template = prompt_template(config)
        self._section = config.generate.SECTION
        self._swept = _swept(config.generate)
        # Every condition is stated: leaving some out is for training.
        self._captions = dataclasses.replace(
            config.caption.template, pattern="{caption}", metadata_dropout=0.0
        )
        self._stated: set[tuple[str, ...]] = set()
        self._plain = not any(mark in self._template for mark in _PLACEHOLDERS)

    def verbatim(self, description: str, labels: Mapping[str, Label]) -> str:
        """The prompt for a description written by hand.

        Raises:
            ConfigError: the prompt template names a condition that the row has no label for.
        """
        template = self._template if self._plain else self._conditions(labels, lenient=False)
        return within_template(template, description)

    def stated(self, description: str, fields: Mapping[str, Label]) -> str:
        """The prompt for a description of the grammar, with its conditions.

        Raises:
            ConfigError: a condition would be a label of images whose prompt does not state it.
        """
        prompt = self._composed(description, fields, lenient=False)
        named = tuple(name for name in _PLACEHOLDERS.values() if name in fields)
        if named not in self._stated:
            for name in named:
                self._require_stated(name, description, fields, prompt)
            self._stated.add(named)
        return prompt

    def _require_stated(
        self, name: str, description: str, fields: Mapping[str, Label], prompt: str
    ) -> None:
        others = {key: value for key, value in fields.items() if key != name}
        if self._composed(description, others, lenient=True) != prompt:
            return
        mark = next(mark for mark, label in _PLACEHOLDERS.items() if label == name)
        raise ConfigError(
            f"{name}: no prompt would state it, so images would be labelled with what nothing "
            "asked for; train on captions that do (caption.template.variant=LONG), put "
            f"{mark} into {self._section}.prompt_template, or leave it out"
        )

    def _composed(self, description: str, fields: Mapping[str, Label], *, lenient: bool) -> str:
        caption = compose(Draft(description), _metadata(fields), self._captions).text
        template = self._template if self._plain else self._conditions(fields, lenient=lenient)
        return within_template(template, caption)

    def _conditions(self, labels: Mapping[str, Label], *, lenient: bool) -> str:
        """The prompt template with its conditions filled in."""
        known = metadata_values(_metadata({**labels, **numeric(labels)}))
        template = self._template
        for mark, name in _PLACEHOLDERS.items():
            if name in self._swept:
                # Stays in the prompt of a layout, for the sweep to fill in.
                if name in labels:
                    raise ConfigError(
                        f"{name} is a label, and {self._section}.sweep.{name} sweeps it: leave one "
                        "of them out"
                    )
                continue
            text = known.get(mark.strip("{}"))
            if text is None and mark in template and not lenient:
                raise ConfigError(f"{self._section}.prompt_template names {mark}: no {name} here")
            template = template.replace(mark, text or "")
        return template


def _swept(cfg: GenerateConfig) -> frozenset[str]:
    """Conditions that the prompts of one layout state differently."""
    from sarhpc.generation.sweeps.settings import stated_values

    return frozenset() if cfg.sweep is None else frozenset(stated_values(cfg.sweep))


def numeric(labels: Mapping[str, Label]) -> dict[str, Label]:
    """The numbers among the fields of the grammar, which a CSV holds as text.

    Raises:
        ConfigError: one is no number above 0.
    """
    numbers: dict[str, Label] = {}
    for name in ("spacing_m", "incidence_deg"):
        if name in labels:
            try:
                number = float(labels[name])
            except ValueError:
                number = float("nan")
            if not 0 < number < 1000:
                raise ConfigError(f"{name} is {labels[name]!r:.40}: a number above 0 is expected")
            numbers[name] = number
    return numbers


def _metadata(fields: Mapping[str, Label]) -> dict[str, Label | None]:
    """The conditions by the names that tiles have for them."""
    return {
        "band": fields.get("band"),
        "pixel_m": fields.get("spacing_m"),
        "incidence_deg": fields.get("incidence_deg"),
    }
