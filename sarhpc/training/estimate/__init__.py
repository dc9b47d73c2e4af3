"""Memory and operations of a training, counted before it is submitted."""
