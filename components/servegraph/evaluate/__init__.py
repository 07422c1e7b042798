"""Measures a serving SavedModel against the version now live, and blesses it or not."""
