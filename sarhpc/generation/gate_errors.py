"""The error by which a gate ends the generation of a corpus."""

from __future__ import annotations

from hpc.errors import VerificationError


class NothingAcceptedError(VerificationError):
    """The gate accepts no image of this model: going on would only cost time."""
