"""Says what the data of a training holds, for the cache of an engine."""
