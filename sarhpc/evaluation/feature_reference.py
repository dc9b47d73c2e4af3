"""FID and KID by torchmetrics, of features that are extracted already."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

from sarhpc.measures.feature_distances import Vectors
from sarhpc.measures.feature_nulls import FRECHET, KERNEL


def reference_values(generated: Vectors, real: Vectors) -> Mapping[str, float]:
    """FID and KID of as many generated as real vectors (N, d); KID over all of them at once.

    FID is left out where the covariance of N vectors is singular.
    """
    import torch
    from torchmetrics.image.fid import FrechetInceptionDistance
    from torchmetrics.image.kid import KernelInceptionDistance

    class _Extracted(torch.nn.Module):
        """The features are the input."""

        num_features = real.shape[1]

        def forward(self, features: torch.Tensor) -> torch.Tensor:
            return features

    with warnings.catch_warnings():
        # KID warns that it holds all features; so many are held already.
        warnings.simplefilter("ignore", UserWarning)
        kid = KernelInceptionDistance(_Extracted(), subsets=1, subset_size=len(real))
    fid = FrechetInceptionDistance(_Extracted())
    for vectors, is_real in ((real, True), (generated, False)):
        batch = torch.from_numpy(vectors)
        kid.update(batch, real=is_real)
        fid.update(batch, real=is_real)
    # KID draws the order of all features from torch's generator, and the last digits depend on it.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        values = {KERNEL: float(kid.compute()[0])}
    if min(len(real), len(generated)) > real.shape[1]:
        values[FRECHET] = float(fid.compute())
    return values
