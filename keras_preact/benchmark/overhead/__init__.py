"""The time of a training step beyond its compiled function."""
