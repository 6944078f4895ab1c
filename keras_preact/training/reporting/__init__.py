"""The figures, pictures and messages of a run."""
