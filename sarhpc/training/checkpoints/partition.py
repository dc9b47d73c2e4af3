"""Who holds which piece of which parameter.

Each rank owns flat fp32 tensors (ZeRO's partitions). A fragment says which run of numbers in one of
them is which run of which named parameter. Averages, checkpoints and exports are all written in
these terms, so that none of them depends on the ZeRO stage.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor

from hpc.errors import VerificationError
from hpc.job.agreement import TorchRankGroup


@dataclass(frozen=True)
class Fragment:
    """`numel` numbers at `start` of flat `tensor`: those at `offset` of parameter `name`."""

    name: str
    shape: tuple[int, ...]
    tensor: int
    start: int
    offset: int
    numel: int

    def to_json(self) -> dict[str, Any]:
        """Plain fields, for a layout file."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Fragment:
        """The fragment `to_json` described."""
        return cls(**{**fields, "shape": tuple(fields["shape"])})


@dataclass(frozen=True)
class Partition:
    """The fp32 weights this rank owns, and where they belong."""

    tensors: list[Tensor]
    fragments: tuple[Fragment, ...]
    groups: tuple[str, ...]
    """Parameter group of each flat tensor."""
    replicated: bool
    """Every rank owns everything (ZeRO stage 0)."""


def partition_of(engine: Any) -> Partition:
    """The fp32 partition a DeepSpeed engine keeps on this rank, for stages 0 to 3."""
    names = {parameter: name for name, parameter in engine.module.named_parameters()}
    stage = engine.zero_optimization_stage()
    if stage == 0:
        return _replicated(engine, names)
    if stage == 3:
        return _sharded_by_parameter(engine, names)
    return _sharded_by_group(engine, names)


def _replicated(engine: Any, names: Mapping[Tensor, str]) -> Partition:
    tensors: list[Tensor] = []
    fragments, groups = [], []
    for group in engine.optimizer.param_groups:
        for parameter in group["params"]:
            name = names[parameter]
            numel = parameter.numel()
            fragments.append(Fragment(name, tuple(parameter.shape), len(tensors), 0, 0, numel))
            tensors.append(parameter)
            groups.append(group["name"])
    return Partition(tensors, tuple(fragments), tuple(groups), replicated=True)


def _sharded_by_group(engine: Any, names: Mapping[Tensor, str]) -> Partition:
    """Stages 1 and 2: a group is one flat tensor, cut in equal runs across parameter borders."""
    optimizer = engine.optimizer
    if hasattr(optimizer, "single_partition_of_fp32_groups"):
        tensors, owners = optimizer.single_partition_of_fp32_groups, optimizer.bit16_groups
    else:  # stage 1 in bf16 is another class, with the same mapping under other names
        tensors, owners = optimizer.fp32_groups_flat_partition, optimizer.bf16_groups
    fragments = []
    for index, parameters in enumerate(owners):
        for parameter in parameters:
            mapping = parameter._hp_mapping
            if mapping is None:
                continue
            piece, source = mapping.get_hp_fragment_address(), mapping.lp_fragment_address
            shape = tuple(parameter.shape)
            fragments.append(
                Fragment(names[parameter], shape, index, piece.start, source.start, piece.numel)
            )
    groups = tuple(group["name"] for group in optimizer.param_groups)
    return Partition(list(tensors), tuple(fragments), groups, replicated=False)


def _sharded_by_parameter(engine: Any, names: Mapping[Tensor, str]) -> Partition:
    """Stage 3: every parameter is cut in equal runs; the last rank's run may end in padding."""
    optimizer = engine.optimizer
    fragments = []
    for index, parameters in enumerate(optimizer.fp16_groups):
        start = 0
        for parameter in parameters:
            width = parameter.partition_numel()
            offset = engine.global_rank * width
            numel = max(0, min(width, parameter.ds_numel - offset))
            if numel:
                shape = tuple(parameter.ds_shape)
                fragments.append(Fragment(names[parameter], shape, index, start, offset, numel))
            start += width
    named = [group["name"] for group in optimizer.param_groups]
    groups = tuple(
        named[optimizer.sub_group_to_group_id[index]]
        for index in range(len(optimizer.fp32_partitioned_groups_flat))
    )
    tensors = list(optimizer.fp32_partitioned_groups_flat)
    return Partition(tensors, tuple(fragments), groups, replicated=False)


@torch.no_grad()
def fill(partition: Partition, named: Mapping[str, Tensor]) -> None:
    """Overwrite the fp32 weights this rank owns with those in `named`."""
    for piece in partition.fragments:
        values = named[piece.name].detach().reshape(-1)[piece.offset : piece.offset + piece.numel]
        flat = partition.tensors[piece.tensor].view(-1)
        flat[piece.start : piece.start + piece.numel] = values.to(flat.device, flat.dtype)


@torch.no_grad()
def clear_padding(partition: Partition) -> None:
    """Set the numbers to zero that belong to no parameter.

    Stage 3 takes them as they lie in memory where a parameter does not divide among the ranks, so
    that equal trainings would save different bytes.
    """
    for index, tensor in enumerate(partition.tensors):
        held = torch.zeros(tensor.numel(), dtype=torch.bool)
        for piece in partition.fragments:
            if piece.tensor == index:
                held[piece.start : piece.start + piece.numel] = True
        if not held.all():
            tensor.view(-1)[~held.to(tensor.device)] = 0


def gather(
    partition: Partition, tensors: Sequence[Tensor], names: Iterable[str]
) -> dict[str, Tensor]:
    """Full fp32 parameters by name, on the CPU of every rank, from flat `tensors`.

    `tensors` are shaped as the partition's own, which an average is too. Collective: all ranks
    call it with the same `names` in the same order. One parameter at a time
    is summed from disjoint pieces, so the result is exact and needs little memory beside it.
    """
    mine: dict[str, list[Fragment]] = {}
    for fragment in partition.fragments:
        mine.setdefault(fragment.name, []).append(fragment)
    shapes = _all_shapes(partition)
    device = reduction_device(tensors)
    full = {}
    for name in names:
        whole = torch.zeros(prod(shapes[name]), dtype=torch.float32, device=device)
        for piece in mine.get(name, ()):
            _place(whole, piece, tensors[piece.tensor])
        if not partition.replicated:
            torch.distributed.all_reduce(whole)
        full[name] = whole.reshape(shapes[name]).cpu()
    return full


def reduction_device(tensors: Sequence[Tensor]) -> torch.device:
    """Where the ranks' `tensors` can be added up: on the GPU under nccl, offloaded ones too."""
    joined = torch.distributed.is_initialized()
    if joined and "nccl" in torch.distributed.get_backend():
        return torch.device("cuda", torch.cuda.current_device())
    return tensors[0].device


def _all_shapes(partition: Partition) -> dict[str, tuple[int, ...]]:
    mine = {fragment.name: fragment.shape for fragment in partition.fragments}
    if partition.replicated:
        return mine
    everyone = TorchRankGroup().gather(mine)
    return {name: tuple(shape) for shapes in everyone for name, shape in shapes.items()}


def assemble(parts: Iterable[tuple[Sequence[Fragment], Sequence[Tensor]]]) -> dict[str, Tensor]:
    """Full fp32 parameters from every rank's fragments and flat tensors.

    Raises:
        VerificationError: the pieces leave a gap in some parameter.
    """
    full: dict[str, Tensor] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    filled: dict[str, int] = {}
    for fragments, tensors in parts:
        for piece in fragments:
            if piece.name not in full:
                full[piece.name] = torch.zeros(prod(piece.shape), dtype=torch.float32)
                shapes[piece.name] = piece.shape
            _place(full[piece.name], piece, tensors[piece.tensor])
            filled[piece.name] = filled.get(piece.name, 0) + piece.numel
    for name, count in filled.items():
        if count != prod(shapes[name]):
            raise VerificationError(
                f"the checkpoint's ranks hold {count} of {prod(shapes[name])} numbers of {name}; "
                "a rank's file is missing: export an older checkpoint"
            )
    return {name: flat.reshape(shapes[name]) for name, flat in full.items()}


def _place(whole: Tensor, piece: Fragment, source: Tensor) -> None:
    values = source.detach().reshape(-1)[piece.start : piece.start + piece.numel]
    whole[piece.offset : piece.offset + piece.numel] = values
