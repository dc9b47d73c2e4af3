"""Training: the DeepSpeed loop, EMA, validation grids and export."""
