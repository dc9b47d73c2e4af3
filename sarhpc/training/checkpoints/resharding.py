"""Resuming the checkpoint of another number of ranks: every number goes to the rank that owns it.

DeepSpeed's own files fit the number of ranks that wrote them. The layout beside them says which
number is which of which parameter, so each rank picks what it owns out of the files of all ranks
that saved, one file at a time. Nothing is computed: weights, moments and average keep every bit.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from hpc.errors import VerificationError
from sarhpc.training.checkpoints.partition import Fragment, Partition, partition_of
from sarhpc.training.checkpoints.pickles import read_pickle
from sarhpc.training.ema import Ema

_MOMENTS = ("exp_avg", "exp_avg_sq")
_MASTERS = ("fp32_flat_groups", "single_partition_of_fp32_groups")


@dataclass(frozen=True)
class _Saved:
    """What one rank wrote."""

    fragments: tuple[Fragment, ...]
    weights: Sequence[Tensor]
    optimizer: dict[int, dict[str, Tensor]]
    """AdamW's state of each flat tensor."""
    average: Sequence[Tensor]


@dataclass(frozen=True)
class _Owned:
    """One kind of number (weight, moment, average) in this rank's flat tensors."""

    tensors: Sequence[Tensor]
    fragments: Sequence[Fragment]

    def take(self, found: Sequence[Fragment], source: Sequence[Tensor]) -> int:
        """Copy what this rank owns out of another's flat tensors; how many numbers that was."""
        theirs: dict[str, list[Fragment]] = {}
        for piece in found:
            theirs.setdefault(piece.name, []).append(piece)
        return sum(
            _copy_overlap(mine, self.tensors[mine.tensor], other, source[other.tensor])
            for mine in self.fragments
            for other in theirs.get(mine.name, ())
        )


@torch.no_grad()
def reshard(directory: Path, engine: Any, ema: Ema | None, saved_world: int) -> Partition:
    """Bring an engine of ZeRO stage 1 to 3 and the average to a checkpoint of `saved_world` ranks.

    Collective. Frozen weights are left as they are.

    Args:
        directory: a checkpoint whose manifest has been verified.
        engine: newly started, with any number of ranks.
        ema: the average to overwrite, if there is one.
        saved_world: how many ranks wrote the checkpoint.

    Returns:
        The engine's partition.

    Raises:
        VerificationError: the files do not hold every number of this rank.
    """
    partition = partition_of(engine)
    moments = _empty_moments(engine, partition)
    kinds = [_Owned(partition.tensors, partition.fragments)]
    kinds += [_Owned(moment, partition.fragments) for moment in moments.values()]
    kinds += [_Owned(ema.tensors, partition.fragments)] if ema is not None else []
    taken = [0] * len(kinds)
    for saved in _read_ranks(directory, saved_world, average=ema is not None):
        sources = [saved.weights, *(_moment(saved, name) for name in _MOMENTS), saved.average]
        for number, (kind, source) in enumerate(zip(kinds, sources, strict=False)):
            taken[number] += kind.take(saved.fragments, source)
        _set_steps(engine, partition, saved)
    _require_all(directory, partition, taken)
    _refresh_model(engine)
    _restore_counters(directory, engine)
    return partition


def _copy_overlap(mine: Fragment, target: Tensor, other: Fragment, source: Tensor) -> int:
    first = max(mine.offset, other.offset)
    last = min(mine.offset + mine.numel, other.offset + other.numel)
    count = max(0, last - first)
    if count:
        there, here = other.start + first - other.offset, mine.start + first - mine.offset
        target.view(-1)[here : here + count] = source.view(-1)[there : there + count].to(target)
    return count


def _inner(engine: Any) -> Any:
    """AdamW itself, inside DeepSpeed's optimiser."""
    return getattr(engine.optimizer, "optimizer", engine.optimizer)


def _empty_moments(engine: Any, partition: Partition) -> dict[str, list[Tensor]]:
    """AdamW's moments as they are before the first step, entered in its state."""
    state = _inner(engine).state
    for tensor in partition.tensors:
        state[tensor] = {name: torch.zeros_like(tensor) for name in _MOMENTS}
    return {name: [state[tensor][name] for tensor in partition.tensors] for name in _MOMENTS}


def _set_steps(engine: Any, partition: Partition, saved: _Saved) -> None:
    """All ranks and tensors have taken the same steps; each tensor counts for itself."""
    optimizer = _inner(engine)
    [taken] = {float(state["step"]) for state in saved.optimizer.values()}
    for tensor in partition.tensors:
        fused = bool(optimizer.defaults.get("fused"))
        device = tensor.device if fused else torch.device("cpu")
        step = torch.tensor(taken, dtype=torch.float32, device=device)
        optimizer.state[tensor]["step"] = step


def _moment(saved: _Saved, name: str) -> list[Tensor]:
    return [saved.optimizer[number][name] for number in range(len(saved.weights))]


def _read_ranks(directory: Path, saved_world: int, *, average: bool) -> Iterator[_Saved]:
    for rank in range(saved_world):
        layout = directory / "layout" / f"rank_{rank:05d}.json"
        pattern = f"*zero_pp_rank_{rank}_mp_rank_00_optim_states.pt"
        [path] = (directory / "deepspeed").glob(f"*/{pattern}")
        held = read_pickle(path, mmap=True)["optimizer_state_dict"]
        [key] = [key for key in _MASTERS if key in held]
        inner = held.get("base_optimizer_state", held.get("optimizer_state_dict"))
        shadow = load_file(directory / "ema" / f"rank_{rank:05d}.safetensors") if average else {}
        yield _Saved(
            tuple(Fragment.from_json(fields) for fields in json.loads(layout.read_text())),
            list(held[key]),
            inner["state"],
            [shadow[name] for name in sorted(shadow)],
        )


def _require_all(directory: Path, partition: Partition, taken: Sequence[int]) -> None:
    owned = sum(piece.numel for piece in partition.fragments)
    if any(count != owned for count in taken):
        raise VerificationError(
            f"{directory} holds {min(taken)} of the {owned} numbers this rank is to own; "
            "a rank's file or layout is damaged: resume from an older checkpoint"
        )


def _refresh_model(engine: Any) -> None:
    """Let the model compute with the weights this rank and the others now own."""
    optimizer = engine.optimizer
    if engine.zero_optimization_stage() < 3:
        optimizer.update_lp_params()
        return
    for number, owned in enumerate(optimizer.fp32_partitioned_groups_flat):
        flat = optimizer.fp16_partitioned_groups_flat[number]
        flat.data.copy_(owned.data)
        pieces = optimizer.fp16_partitioned_groups[number]
        for piece, values in zip(pieces, optimizer.unflatten(flat, pieces), strict=True):
            piece.data = values.data
    if kept_whole := optimizer.persistent_parameters:
        kept_whole[0].partition(kept_whole)
        kept_whole[0].all_gather(kept_whole)


def _restore_counters(directory: Path, engine: Any) -> None:
    """Let DeepSpeed's own counters go on; they appear in what it saves."""
    files = sorted((directory / "deepspeed").glob("*/*mp_rank_00_model_states.pt"))
    counted = read_pickle(files[0], mmap=True)
    engine.global_steps, engine.skipped_steps = counted["global_steps"], counted["skipped_steps"]
    engine.global_samples = counted["global_samples"]
