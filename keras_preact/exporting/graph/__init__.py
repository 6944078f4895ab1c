"""A network's inference as a graph, rewritten to fewer operations."""
