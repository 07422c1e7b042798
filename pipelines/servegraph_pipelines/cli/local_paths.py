"""The type of every argument and option that is a path on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from servegraph.storage.local_paths import require_local


class LocalPath(click.Path):
    """A path on this machine, which arrives as `pathlib.Path`; an address is refused (code `NOT_LOCAL`)."""

    def __init__(self, *, exists: bool = False, file_okay: bool = True, dir_okay: bool = True) -> None:
        """Take what `click.Path` takes."""
        super().__init__(exists=exists, file_okay=file_okay, dir_okay=dir_okay, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path; of the default, which comes here too, the same."""
        return super().convert(require_local(value), param, ctx)


FILE = LocalPath(exists=True, dir_okay=False)
"""A file that is read."""

NEW_FILE = LocalPath(dir_okay=False)
"""A file that is written."""
