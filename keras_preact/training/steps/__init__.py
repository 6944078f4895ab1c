"""One training step and what it changes."""
