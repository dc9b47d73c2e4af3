"""Metrics, layouts, cards and ranks: what a training writes down and reads back."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

from hpc.errors import ConfigError, NumericalError, TransientError, VerificationError
from hpc.job.agreement import SingleProcess
from sarhpc.training.checkpoints.partition import Fragment, assemble
from sarhpc.training.export import model_card
from sarhpc.training.metrics.gradient_norms import require_gradients
from sarhpc.training.metrics.log import MetricsLog, read_rows
from sarhpc.training.nonfinite import poison_if_nonfinite
from sarhpc.training.ranks import in_touch, join


def test_resumed_log_holds_every_step_once_and_no_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path, 0)
    for step in (1, 2, 3):
        log.write({"step": step, "loss": 1.0})
    with path.open("a") as file:
        file.write('{"step": 4, "lo')

    resumed = MetricsLog(path, 2)
    resumed.write({"step": 3, "loss": 2.0})

    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"step": 1, "loss": 1.0},
        {"step": 2, "loss": 1.0},
        {"step": 3, "loss": 2.0},
    ]
    assert len(read_rows(path)) == 3


def test_parameters_are_put_together_from_pieces_in_any_order() -> None:
    name, shape = "unet.w", (2, 3)
    flat = torch.arange(6.0)
    pieces = [
        ([Fragment(name, shape, 0, 1, 4, 2)], [torch.tensor([9.0, 4.0, 5.0])]),
        ([Fragment(name, shape, 0, 0, 0, 4)], [flat[:4]]),
    ]
    assert torch.equal(assemble(pieces)[name], flat.reshape(shape))
    read = Fragment.from_json(json.loads(json.dumps(pieces[0][0][0].to_json())))
    assert read == pieces[0][0][0]


def test_gap_in_a_parameter_is_named() -> None:
    pieces = [([Fragment("unet.w", (2, 3), 0, 0, 0, 4)], [torch.zeros(4)])]
    with pytest.raises(VerificationError, match=r"4 of 6 numbers of unet\.w"):
        assemble(pieces)


def test_group_without_gradient_stops_the_run_by_name() -> None:
    require_gradients({"unet": 1.0, "text_encoder": 1e-12})
    with pytest.raises(NumericalError, match="text_encoder"):
        require_gradients({"unet": 1.0, "text_encoder": 0.0})


def test_an_infinite_loss_takes_its_finite_gradient_with_it() -> None:
    weight = torch.tensor([3.0], requires_grad=True)
    poison_if_nonfinite((weight * 2).sum()).backward()
    assert weight.grad == torch.tensor([2.0])
    weight.grad = None
    lost = (weight * 2).sum() + float("inf")
    poison_if_nonfinite(lost).backward()
    assert weight.grad is not None
    assert weight.grad.isnan().all()


def test_model_card_has_a_front_matter_and_all_facts() -> None:
    card = model_card({"base_model": "sd15", "config_fingerprint": "abc", "licence": "openrail"})
    assert card.startswith("---\nlibrary_name: diffusers\n")
    assert "| base model | sd15 |" in card
    assert "| config fingerprint | abc |" in card
    assert "openrail. A fine-tuned model inherits" in card


def test_half_set_rank_environment_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setitem(os.environ, "RANK", "1")
    with pytest.raises(ConfigError, match="WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT"):
        join(1, deterministic=False, seed=0)


def test_lost_rank_is_a_passing_trouble_and_other_errors_stay_what_they_are() -> None:
    ranks = SingleProcess(0, 2)
    with pytest.raises(TransientError, match="rank 0 of 2 lost the connection"), in_touch(ranks):
        raise RuntimeError("[gloo/transport/tcp/pair.cc:537] Connection reset by peer")
    with pytest.raises(RuntimeError, match="shape"), in_touch(ranks):
        raise RuntimeError("shape mismatch")
