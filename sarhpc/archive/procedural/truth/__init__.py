"""Ground truth of procedural tiles: composition, and captions of a small vocabulary."""
