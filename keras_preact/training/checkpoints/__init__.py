"""The state of a run on storage: saved in the background, restored, checked."""
