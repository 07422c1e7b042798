"""Pipelines that run again and again: one declarative file, on any engine or on this machine."""
