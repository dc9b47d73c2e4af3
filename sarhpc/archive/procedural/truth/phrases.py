"""The vocabulary of ground-truth captions, small enough for a small model."""

from __future__ import annotations

NOUNS: dict[str, tuple[str, ...]] = {
    "water": ("a lake", "the open water of a lake", "a large lake", "calm lake water"),
    "river": ("a wide river", "the water of a river", "a river"),
    "forest": ("a forest", "a forest with many trees", "a green forest"),
    "dense forest": ("a dense forest", "a thick forest", "a dense forest of tall trees"),
    "open forest": ("a forest with gaps", "a sparse forest", "an open forest"),
    "crop": ("crop fields", "farmland with crop fields", "a cultivated field", "a crop field"),
    "grass": ("a green field of grass", "a grass field", "meadow fields"),
    "bare": ("a bare field", "ploughed fields", "a field of bare soil"),
    "shrub": ("a vineyard field", "vineyard fields", "fields with rows of vines"),
    "town": ("a town", "a town with houses and streets", "houses along the streets of a town"),
    "dense town": ("a dense town", "a town with many buildings", "a crowded town with buildings"),
    "halls": (
        "an industrial area of a town",
        "a town with large buildings",
        "large buildings in a town",
    ),
    "some water": ("a lake", "a stretch of water"),
    "pond": ("a pond", "a small lake"),
    "some forest": ("a forest", "a wood", "a group of trees"),
    "trees": ("a few trees", "some trees", "scattered trees"),
    "clearing": ("a clearing", "an open clearing"),
    "some field": ("fields", "a field", "open fields"),
    "houses": ("a few houses", "some houses", "a small village"),
    "house": ("a house", "a single house", "a lone building"),
    "village": ("a village", "part of a town"),
    "road": ("a road", "a paved road"),
    "path": ("a path", "a narrow path"),
    "stream": ("a river", "a winding river"),
}
"""Phrases by the key of their meaning."""

_LINKS = (
    "crosses that crossed by with and around in the middle beside next to near far range "
    "upper lower part lie lies surrounded a lake pond river water forest field town village"
)


def vocabulary() -> frozenset[str]:
    """Every word a caption or a relation can contain."""
    phrases = (phrase for group in NOUNS.values() for phrase in group)
    return frozenset(" ".join([_LINKS, *phrases]).split())
