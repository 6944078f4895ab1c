"""Devices, precision, processes and replicas of a run."""
