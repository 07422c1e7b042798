"""Shrink a SavedModel rung by rung, and prove after each that its answers stayed."""
