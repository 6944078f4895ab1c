"""The devices and processes over which a step is spread."""
