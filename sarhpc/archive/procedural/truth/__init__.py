"""What is truly on a procedural tile: its composition, and captions of a small vocabulary."""
