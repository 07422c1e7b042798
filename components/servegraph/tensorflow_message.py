"""What TensorFlow's errors say, without what it puts around it."""

from __future__ import annotations

import re

_AROUND = ("Graph execution error:", "Detected at node ", "File ", "Node: ", "Stack trace for op ")
_MOST_CHARACTERS = 1000


def first_cause(message: str) -> str:
    """Return what a kernel or a function said, without the positions and stack traces around it."""
    if message.startswith("in user code:"):  # of tf.function: a trace with lines of code, and then the error
        return message.strip().splitlines()[-1].strip()[:_MOST_CHARACTERS]
    lines = [line.strip() for line in re.split(r"\[\[\{\{|\[Op:", message)[0].splitlines()]
    said = " ".join(line for line in lines if line and not line.startswith(_AROUND))
    return (said or message)[:_MOST_CHARACTERS]
