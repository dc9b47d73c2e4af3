"""Train, validation and test by geography, and the proof that they share no ground."""
