"""Which machine serves a model: the catalogue as data (`catalogue.yaml`) and the pure choice over it.

Importing this package reads nothing and imports no yaml; the catalogue is parsed once, at the first choice.
"""
