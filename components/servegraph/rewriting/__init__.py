"""A SavedModel read apart, changed as a graph in memory, and written again; what is in it streams from disk to disk."""
