"""One small interface over a local path and `gs://bucket/prefix`.

`open_dir(uri)` gives a `Directory`, which is what a model is; `match(uri)` gives the data files that a path,
a pattern or a directory names. Everything above this package speaks only to these.
Source of the gs:// rules: the JSON API of Cloud Storage as google-cloud-storage speaks it.
"""

from servegraph.storage.data_files import FileRef, match
from servegraph.storage.directory import Directory, FileInfo, RandomAccess, iter_chunks, open_dir

__all__ = [
    "Directory",
    "FileInfo",
    "FileRef",
    "RandomAccess",
    "iter_chunks",
    "match",
    "open_dir",
]
