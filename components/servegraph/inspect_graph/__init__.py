"""inspect_graph: what a SavedModel holds and what is wrong with it, without TensorFlow.

`inspect.py` puts the report together; `rules.py` is the table of everything that can be wrong;
`integrity.py`, `references.py`, `signatures.py`, `weights.py`, `operations.py` and `security.py` hold the checks,
`html.py` and `text.py` show what was found.
"""
