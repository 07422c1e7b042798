"""From a trained TensorFlow model to a right-sized serving version.

This module imports nothing: a serving image needs no kfp, and `servegraph inspect` no TensorFlow.
The components are in `servegraph.components`.
"""

__version__ = "0.1.0"
