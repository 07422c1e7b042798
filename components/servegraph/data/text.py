"""What white space is: the same in tables as in the graph of a model."""

from __future__ import annotations

import string


def strip(text: str) -> str:
    """Return `text` without the white space around it that `tf.strings.strip` removes: ASCII, not all of Unicode.

    A value that was stripped of more than a graph strips would be out of the vocabulary there.
    """
    return text.strip(string.whitespace)
