"""Packaging a custom prediction routine with its model: built, its requirements fetched, tried through the server."""
