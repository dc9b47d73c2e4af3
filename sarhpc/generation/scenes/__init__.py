"""Images larger than the tiles that a model was trained on, denoised in shifted windows."""
