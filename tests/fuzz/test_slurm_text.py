"""What Slurm's commands print, cut short and damaged: rows are read or passed over."""

from __future__ import annotations

from random import Random

import pytest
from case_counts import each
from document_mutations import damaged_text
from isolated_cases import problem_of

from hpc.cluster import slurm_text

ENDS = (slurm_text.FIELD_END, slurm_text.ROW_END + "\n")
QUEUE = "\x1f".join(
    ("17_[3-9:2%1]", "PENDING", "Priority", "gpu", "n[1-3,07]", "1-02:03:04", "UNLIMITED", "0",
     "na|me", "sarhpc:r:tile:t-0")
)  # fmt: skip
ACCOUNT = "\x1f".join(
    ("17_3", "CANCELLED by 7", "60", "cpu=4,gres/gpu:a100=2", "4", "n1", "0:53",
     "2026-01-01T00:00:00", "Unknown", "name", "")
)  # fmt: skip
PARTITION = "\x1f".join(
    ("gpu*", "up", "1-00:00:00", "4", "64", "512000+", "gpu:a100:4(S:0-1)", "(null)", "1")
)
DETAILS = "PartitionName=gpu PriorityTier=1 PreemptMode=REQUEUE GraceTime=30 Default=YES"
WORDS = ("9" * 30, "9" * 5000, "-1", "", " ", "²", "٣", "n[", "n]", "n[1-]", "n[-1]", "n[3-1]",
         "n[1-99999999999]", "n[1,,2]", "n[a-b]", "[1]", "\x1f", "\x1e", "\n", "=", "a=", "=b",
         "17_[", "17_[1-99999999999]", "17_[1:0]", "17_[%]", "UNLIMITED", "1:2:3:4",
         "0001-01-01", "9999-12-31T23:59:59-14:00")  # fmt: skip


def check_rows(random: Random) -> None:
    read = random.choice(
        (
            lambda text: slurm_text.parse_queue(text),
            lambda text: slurm_text.parse_accounting(text),
            lambda text: slurm_text.parse_partitions(text, DETAILS),
            lambda text: slurm_text.parse_partitions(PARTITION + "\x1e\n", text),
            lambda text: slurm_text.parse_nodes(text),
            lambda text: slurm_text.parse_config(text),
            lambda text: [slurm_text.pairs(line) for line in text.splitlines()],
        )
    )
    row = random.choice((QUEUE, ACCOUNT, PARTITION, DETAILS, "n1\x1fidle\x1fnone"))
    fields = row.split("\x1f")
    for _ in range(random.choice((0, 1, 3))):
        fields[random.randrange(len(fields))] = random.choice(WORDS)
    text = random.choice(ENDS).join(["\x1f".join(fields)] * random.choice((1, 2))) + ENDS[1]
    if random.random() < 0.5:
        text = damaged_text(text, random).decode(errors="replace")
    problem = problem_of(lambda: read(text), ["Slurm"])
    assert problem is None, (problem, text)


def check_words(random: Random) -> None:
    read = random.choice(
        (
            slurm_text.seconds, slurm_text.gpu_count, slurm_text.gpu_type,
            slurm_text.expand_hosts, slurm_text.plain_id,
        )
    )  # fmt: skip
    whole = random.choice(("17_[3-9:2%1]", "n[1-3,07],login", "1-02:03:04", "gpu:a100:4(S:0-1)"))
    parts = [random.choice(WORDS), whole, damaged_text(whole, random).decode(errors="replace")]
    text = "".join(random.choices(parts, k=random.choice((1, 2))))
    problem = problem_of(lambda: read(text), ["host list", "job id", "array"])
    assert problem is None, (problem, read, text)


@pytest.mark.parametrize("check", [check_rows, check_words])
def test_damaged_output_of_slurm_is_read_or_passed_over(check) -> None:  # type: ignore[no-untyped-def]
    each(60, check)


@pytest.mark.long
@pytest.mark.parametrize("check", [check_rows, check_words])
def test_much_damaged_output_of_slurm(check) -> None:  # type: ignore[no-untyped-def]
    each(260, check)
