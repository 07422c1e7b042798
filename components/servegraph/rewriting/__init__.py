"""A SavedModel read apart, changed as a graph in memory, and written again; what is in it streams from disk to disk."""

from typing import Literal

Precision = Literal["float32", "bfloat16", "float16"]  # that a graph computes in
