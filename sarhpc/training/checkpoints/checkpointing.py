"""What a training checkpoint holds, written and read by every rank for itself.

    deepspeed/state/...            DeepSpeed's own files (weights, masters, moments)
    layout/rank_00000.json         which number of which flat tensor is which of which parameter
    ema/rank_00000.safetensors     this rank's shard of the averaged weights
    rng/rank_00000.pt              this rank's random states

At stage 0 every rank holds everything, and only rank 0 writes layout and average.

The store around it (manifest, checksums, atomic rename, choice of the newest whole one) is passed
in. Only a checkpoint whose manifest has been verified and is signed by the run is passed to `load`;
its pickles are read without running anything all the same.
"""

from __future__ import annotations

import contextlib
import json
import logging
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from hpc.errors import VerificationError
from hpc.publish import fault
from sarhpc.training.checkpoints.partition import Fragment, Partition, assemble, partition_of
from sarhpc.training.checkpoints.pickles import read_pickle
from sarhpc.training.checkpoints.resharding import reshard
from sarhpc.training.ema import Ema

TAG = "state"

_log = logging.getLogger(__name__)


class _DeferringWriter:
    """DeepSpeed's file writer, except that a failed write is kept until all ranks are through.

    DeepSpeed ends a save with a barrier: a rank that raised at a full disk would leave the others
    waiting in it.
    """

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.failure: Exception | None = None

    def save(self, state_dict: Any, path: str) -> None:
        """Write one file, or remember why not."""
        try:
            fault("training.save_file")
            self._inner.save(state_dict, path)
        except (OSError, RuntimeError) as error:
            self.failure = error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class _RestrictedReader:
    """DeepSpeed's file reader, except that nothing in a file is run."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def load(self, path: str, map_location: Any = None) -> Any:
        """The content of one file."""
        return read_pickle(Path(path), map_location)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def save(directory: Path, engine: Any, partition: Partition, ema: Ema | None) -> list[Path]:
    """Write this rank's part under `directory` and return the files it wrote. Collective.

    Raises:
        OSError, RuntimeError: a file could not be written; all ranks have passed DeepSpeed's
            barriers by then, so the store can agree on the failure.
    """
    rank = engine.global_rank
    _save_engine(engine, directory / "deepspeed")
    written = [_save_random(directory, rank), *_engine_files(directory, rank)]
    if rank == 0 or not partition.replicated:
        written.append(_save_layout(directory, rank, partition))
        written += [_save_average(directory, rank, ema)] if ema is not None else []
    return written


def _save_engine(engine: Any, directory: Path) -> None:
    plain = engine.checkpoint_engine
    deferring = _DeferringWriter(plain)
    engine.checkpoint_engine = deferring
    try:
        engine.save_checkpoint(
            str(directory), tag=TAG, save_latest=False, exclude_frozen_parameters=True
        )
    finally:
        engine.checkpoint_engine = plain
    if deferring.failure is not None:
        raise deferring.failure


def _engine_files(directory: Path, rank: int) -> list[Path]:
    """What DeepSpeed wrote for this rank; the whole model's file, outside stage 3, is rank 0's."""
    files = sorted((directory / "deepspeed" / TAG).glob("*.pt"))
    shared = "mp_rank_00_model_states.pt"
    return [
        path
        for path in files
        if f"pp_rank_{rank}_" in path.name or (rank == 0 and path.name == shared)
    ]


def _save_layout(directory: Path, rank: int, partition: Partition) -> Path:
    path = directory / "layout" / f"rank_{rank:05d}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([fragment.to_json() for fragment in partition.fragments]))
    return path


def _save_average(directory: Path, rank: int, ema: Ema) -> Path:
    path = directory / "ema" / f"rank_{rank:05d}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({f"{i:05d}": tensor.contiguous().cpu() for i, tensor in enumerate(ema.tensors)}, path)
    return path


def _save_random(directory: Path, rank: int) -> Path:
    path = directory / "rng" / f"rank_{rank:05d}.pt"
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(random_state(), path)
    return path


def random_state() -> dict[str, Any]:
    """This process's random states (python, numpy, torch, GPU) as tensors and plain numbers."""
    name, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    words = np.asarray(keys).tolist()
    return {
        "python": random.getstate(),
        "numpy": (name, words, position, has_gauss, gauss),
        "torch": torch.get_rng_state(),
        "gpu": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }


def _restore_random(state: Mapping[str, Any]) -> None:
    random.setstate(state["python"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if state["gpu"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["gpu"])


@contextlib.contextmanager
def preserved_random_state() -> Iterator[None]:
    """Whatever the block draws, this process's random states are as before when it ends."""
    before = random_state()
    try:
        yield
    finally:
        _restore_random(before)


def load(directory: Path, engine: Any, ema: Ema | None, saved_world: int) -> Partition:
    """Bring engine, average and random states to those under `directory`. Collective.

    From the same number of ranks everything is as it was, to the bit. From another number the
    training goes on with the same weights, moments and average, resharded.

    Returns:
        The engine's partition after loading.

    Raises:
        VerificationError: DeepSpeed found nothing it could load, or numbers are missing.
    """
    rank = engine.global_rank
    if saved_world == engine.world_size or engine.zero_optimization_stage() == 0:
        partition = _load_as_saved(directory, engine, ema)
    else:
        partition = reshard(directory, engine, ema, saved_world)
    if saved_world != engine.world_size and rank == 0:
        _log.info("checkpoint of %d ranks resharded for %d", saved_world, engine.world_size)
    # Every draw of the training has a seed of its own; these states are of the process alone.
    states = directory / "rng" / f"rank_{rank % saved_world:05d}.pt"
    _restore_random(torch.load(states, weights_only=True))
    return partition


def _load_as_saved(directory: Path, engine: Any, ema: Ema | None) -> Partition:
    # Frozen weights are not in the checkpoint: they come from the base model.
    plain = engine.checkpoint_engine
    engine.checkpoint_engine = _RestrictedReader(plain)
    try:
        path, _ = engine.load_checkpoint(
            str(directory / "deepspeed"), tag=TAG, load_module_strict=False
        )
    finally:
        engine.checkpoint_engine = plain
    if path is None:
        raise VerificationError(f"{directory} holds no DeepSpeed state that could be loaded")
    partition = partition_of(engine)
    if ema is not None:
        owner = 0 if partition.replicated else engine.global_rank
        ema.load(_flat_tensors(directory / "ema" / f"rank_{owner:05d}.safetensors"))
    return partition


def _flat_tensors(path: Path) -> list[Tensor]:
    saved = load_file(path)
    return [saved[name] for name in sorted(saved)]


def read_weights(directory: Path, *, average: bool) -> dict[str, Tensor]:
    """Full fp32 parameters by name from a checkpoint on disk, in one process without a GPU.

    Args:
        directory: a checkpoint whose manifest has been verified.
        average: the averaged weights; otherwise the raw ones (these lie in DeepSpeed's pickles).

    Raises:
        VerificationError: the checkpoint has no average, or lacks a rank's file.
    """
    layouts = sorted((directory / "layout").glob("rank_*.json"))
    if not layouts:
        raise VerificationError(f"{directory} is no training checkpoint: it has no layout")
    parts = []
    for rank, layout in enumerate(layouts):
        fragments = [Fragment.from_json(fields) for fields in json.loads(layout.read_text())]
        parts.append((fragments, _shard(directory, rank, average, fragments)))
    return assemble(parts)


def _shard(
    directory: Path, rank: int, average: bool, fragments: Sequence[Fragment]
) -> list[Tensor]:
    if average:
        path = directory / "ema" / f"rank_{rank:05d}.safetensors"
        if not path.is_file():
            raise VerificationError(
                f"{directory} holds no averaged weights of rank {rank}; "
                "export the raw ones, or train with ema_decay above 0"
            )
        return _flat_tensors(path)
    return _raw_shard(directory / "deepspeed" / TAG, rank, fragments)


def _raw_shard(directory: Path, rank: int, fragments: Sequence[Fragment]) -> list[Tensor]:
    """A rank's fp32 tensors out of DeepSpeed's files, whichever stage wrote them."""
    found = sorted(directory.glob(f"*zero_pp_rank_{rank}_mp_rank_00_optim_states.pt"))
    if not found:  # stage 0: the weights themselves, in the order of the layout
        states = read_pickle(directory / "mp_rank_00_model_states.pt")
        return [states["module"][fragment.name] for fragment in fragments]
    optimizer = read_pickle(found[0])["optimizer_state_dict"]
    for key in ("fp32_flat_groups", "single_partition_of_fp32_groups"):
        if key in optimizer:
            return list(optimizer[key])
    raise VerificationError(f"{found[0]} holds no fp32 weights; it is of another DeepSpeed version")
