"""The plane of tiles: the ground, or the slant plane in which the image was formed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from sarhpc.archive.scene import AS_FORMED, SarHeader, SarReader, Scene

PLANES = ("ground", "slant")

Opener = Callable[[Scene], SarReader]


def opener_in(plane: str, opener: Opener) -> Opener:
    """The opener, asking for images as they were formed where tiles lie in the slant plane."""
    if plane == "ground":
        return opener

    def open_as_formed(scene: Scene) -> SarReader:
        properties = {**scene.properties, AS_FORMED: True}
        return opener(dataclasses.replace(scene, properties=properties))

    return open_as_formed


def header_in(plane: str, header: SarHeader) -> SarHeader:
    """The header with the spacing in that plane; as it is where the image has none in it.

    A local frame is measured in the plane too; positions on a map stay those of the ground.
    """
    slant = header.slant_spacing_m
    if plane == "ground" or slant is None:
        return header
    affine = header.affine
    if header.crs is None and header.placement is None:
        along_row, along_col = (s / g for s, g in zip(slant, header.spacing_m, strict=True))
        a, b, c, d, e, f = affine
        affine = (a * along_col, b * along_row, c, d * along_col, e * along_row, f)
    response = header.response
    if response is not None:
        row, col = (
            dataclasses.replace(
                axis, irw_m=None if axis.irw_m is None else axis.irw_m * in_plane / ground
            )
            for axis, in_plane, ground in zip(response, slant, header.spacing_m, strict=True)
        )
        response = (row, col)
    facts = {**header.facts, "plane": "slant"}
    return dataclasses.replace(
        header, spacing_m=slant, affine=affine, response=response, facts=facts
    )
