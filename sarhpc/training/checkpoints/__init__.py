"""What a training checkpoint holds, for any number of ranks."""
