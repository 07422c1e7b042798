"""Remembers what was trained, for the next retraining to compare with and to start from."""
