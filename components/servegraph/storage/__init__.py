"""One small interface over a local path and `gs://bucket/prefix`.

`open_dir(uri)` gives a `Directory`, which is what a model is; `match(uri)` gives the data files that a path,
a pattern or a directory names. Everything above this package speaks only to these.
Source of the gs:// rules: the JSON API of Cloud Storage as google-cloud-storage speaks it.
"""

from typing import TYPE_CHECKING, Any

from servegraph.storage.directory import Directory, FileInfo, RandomAccess, iter_chunks, open_dir

if TYPE_CHECKING:
    from servegraph.storage.data_files import FileRef, match

__all__ = [
    "Directory",
    "FileInfo",
    "FileRef",
    "RandomAccess",
    "iter_chunks",
    "match",
    "open_dir",
]


def __getattr__(name: str) -> Any:
    """Return what is for data files, imported when it is asked for: looking at a model needs none of it."""
    if name in ("FileRef", "match"):
        from servegraph.storage import data_files

        return getattr(data_files, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
