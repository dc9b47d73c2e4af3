"""Low-rank adapters at generation: which ones, whether they fit the model, and applying them."""
