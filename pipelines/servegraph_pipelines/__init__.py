"""The pipelines that wire servegraph's components together, and the `servegraph` command.

This module imports nothing: the command line must start in milliseconds.
"""
