"""The formats that servers and phones load."""
