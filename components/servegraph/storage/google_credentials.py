"""Why the file that GOOGLE_APPLICATION_CREDENTIALS names can be no credentials, in words that hold none of them.

Google's library quotes the value of the variable, which holds a private key where somebody put the content of the file
in the place of its path; and of a directory, which is what Docker mounts where there is no file, it raises what it
comes to.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

VARIABLE = "GOOGLE_APPLICATION_CREDENTIALS"
FIX = f"Run `gcloud auth application-default login`, or set {VARIABLE} to the path of a file with credentials."
_LONGEST_NAME = 255  # of a file, on all usual file systems


def problem() -> str | None:
    """Return what is wrong with the file, in a sentence; None where nothing is, or none is named."""
    named = os.environ.get(VARIABLE)
    if not named:
        return None
    if "{" in named or "\n" in named or max(map(len, named.split("/"))) > _LONGEST_NAME:
        return f"{VARIABLE} is not the path of a file: it may hold the credentials themselves."
    try:
        document = json.loads(Path(named).read_text(encoding="utf-8"))
    except OSError as exc:
        return f"The file {named!r} of {VARIABLE} cannot be read: {exc.strerror}."
    except ValueError:
        return f"The file {named!r} of {VARIABLE} is not JSON."
    return None if isinstance(document, dict) else f"The file {named!r} of {VARIABLE} holds no JSON object."
