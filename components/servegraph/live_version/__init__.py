"""Finds the version of a model that has the traffic, and its files."""
