"""One line in the log of a step: what it took, by content. An engine that tells nothing else of it has the log."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

_LINE = re.compile(r"servegraph took (\{.*\})")


def say(**digests: str) -> None:
    """Print the digest of each input by its name; one that is not known, an empty text, is left out."""
    print(f"servegraph took {json.dumps({name: digest for name, digest in digests.items() if digest})}", flush=True)


def read(lines: Sequence[str]) -> dict[str, str]:
    """Return the digests by input that a step said last, empty where it said none."""
    for line in reversed(lines):
        if found := _LINE.search(line):
            try:
                return {str(name): str(digest) for name, digest in json.loads(found[1]).items()}
            except ValueError:
                continue  # cut off, or somebody else's
    return {}


def digest_in(metadata: Mapping[str, Any]) -> str:
    """Return the digest of an artifact's content, as our components note it in its metadata; empty where none is."""
    facts = (value for value in metadata.values() if isinstance(value, Mapping))
    return str(next((row["digest"] for row in facts if row.get("digest")), ""))
