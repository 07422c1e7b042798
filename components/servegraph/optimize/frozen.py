"""The rung that keeps the weights of a frozen graph with the variables instead of in the graph.

A loader copies a graph several times before the first answer, and each copy holds every constant: 105 MB of them took
695 MB once they were asked, and the first answer three seconds. A variable is there once.
"""

from __future__ import annotations

from servegraph.rewriting.draft import Draft
from servegraph.rewriting.weights import constant_bytes, loosen

_WORTH_BYTES = 4 * 2**20  # of all constants: for less, nobody need wait until it is known how fast that is


def as_variables(draft: Draft) -> Draft:
    """Make variables of large constants, where there are many bytes of them."""
    return loosen(draft) if constant_bytes(draft) >= _WORTH_BYTES else draft
