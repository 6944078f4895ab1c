"""The inference of a network as a graph, rewritten to fewer operations."""
