"""Start, step and memory of training against the depth."""
