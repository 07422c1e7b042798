"""Is it whole: the graph, the index, every data file, every asset, and nothing from elsewhere."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Iterator, Mapping

from servegraph.errors import ModelError, StorageError
from servegraph.inspect_graph.findings import Finding, finding
from servegraph.progress import Progress
from servegraph.savedmodel.bundle_index import BundleIndex, TensorEntry
from servegraph.savedmodel.bundle_reader import BundleReader, expected_bytes, shard_path
from servegraph.savedmodel.graph import SavedModelGraph
from servegraph.savedmodel.graph_reader import BINARY, TEXT
from servegraph.savedmodel.layout import role_of
from servegraph.savedmodel.reachability import Reachability
from servegraph.storage.directory import Directory, FileInfo

STRAY_CODES = {
    "stray": "STRAY_FILE",
    "stray_checkpoint": "STRAY_CHECKPOINT",
    "stray_summary": "STRAY_SUMMARY",
}


# With fewer bytes threads cost more than they bring; a second one is enough to keep the disk or the memory busy.
PARALLEL_BYTES, PARALLEL = 64 * 10**6, 2
PROGRESS_STEPS = 100
# https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md
LFS_HEADER, MAX_POINTER_BYTES = b"version https://git-lfs.github.com/spec/", 1023
POINTER_CODES = frozenset({"GRAPH_CORRUPT", "INDEX_CORRUPT", "TRUNCATED_SHARD"})


def check_files(directory: Directory, files: list[FileInfo]) -> Iterator[Finding]:
    """Find what does not belong, and what is not really there."""
    paths = {info.path for info in files}
    if {BINARY, TEXT} <= paths:
        yield finding("TWO_GRAPHS", f"{BINARY} is read, {TEXT} is not.")
    for info in files:
        code = STRAY_CODES.get(role_of(info.path))
        if code:
            yield finding(code, f"{info.path} ({info.size_bytes:,} bytes) is not part of the model.")
        if info.link_target is not None:
            yield _link(directory, info)


def check_pointers(directory: Directory, files: list[FileInfo], suspects: Iterable[Finding]) -> Iterator[Finding]:
    """Find out whether Git LFS's pointers are why files are damaged; nothing is read where none is."""
    if not any(item.code in POINTER_CODES for item in suspects):
        return
    for info in files:
        may_be = role_of(info.path) in ("graph", "variables") and 0 < info.size_bytes <= MAX_POINTER_BYTES
        if may_be and directory.read_bytes(info.path).startswith(LFS_HEADER):
            yield finding("LFS_POINTER", f"{info.path} has {info.size_bytes:,} bytes, which name the real file.")


def _link(directory: Directory, info: FileInfo) -> Finding:
    try:
        directory.open(info.path).close()
    except StorageError as error:
        lost = "" if error.code == "LINK_OUTSIDE" else ", where there is no file"
        return finding("LINK_OUTSIDE", f"{info.path} is a link to {info.link_target}{lost}.")
    return finding("LINK", f"{info.path} is a link to {info.link_target}.")


def check_assets(graph: SavedModelGraph, files: list[FileInfo]) -> Iterator[Finding]:
    """Find assets that the graph names and the directory lacks, or has and should not."""
    paths = {info.path for info in files}
    named = {name for meta_graph in graph.meta_graphs for name in meta_graph.assets.values()}
    for name in sorted(named):
        if name.startswith("/") or ".." in name.split("/") or "\\" in name or "://" in name:
            yield finding("PATH_ESCAPES", f"The graph has the asset {name!r}.")
        elif f"assets/{name}" not in paths:
            yield finding("MISSING_ASSET", f"The graph reads assets/{name}, which is not there.")
    for path in sorted(paths):
        if path.startswith("assets/") and path.removeprefix("assets/") not in named:
            yield finding("UNUSED_ASSET", f"{path} is not read.")


def check_shards(index: BundleIndex, files: list[FileInfo], prefix: str) -> Iterator[Finding]:
    """Find data files that are missing, too short, or of another set of variables."""
    if index.is_big_endian:
        yield finding("BIG_ENDIAN", f"{prefix}.index says so.")
    yield from _check_sizes(index.entries.values())
    sizes = {info.path: info.size_bytes for info in files}
    expected = [shard_path(prefix, number, index.shard_count) for number in range(index.shard_count)]
    needed = frozenset(expected)
    ends = _ends(index)
    for number in ends.keys() - range(index.shard_count):
        key = ends[number][1]
        yield finding("INDEX_CORRUPT", f"{key!r} is said to be in data file {number} of {index.shard_count}.")
    for number, path in enumerate(expected):
        end, key = ends.get(number, (0, ""))
        if path not in sizes:
            yield finding("MISSING_SHARD", f"{path} is not there.")
        elif sizes[path] < end:
            yield finding("TRUNCATED_SHARD", f"{path} has {sizes[path]:,} bytes; {key!r} needs {end:,}.")
        elif sizes[path] > end:
            yield finding("UNUSED_BYTES", f"{path} has {sizes[path] - end:,} bytes behind the last tensor.")
    for path in sizes:
        if path.startswith(f"{prefix}.data-") and path not in needed:
            yield finding("ORPHAN_SHARD", f"{path} is not one of the {index.shard_count} files that the index names.")


def _check_sizes(entries: Iterable[TensorEntry]) -> Iterator[Finding]:
    for entry in entries:
        size = expected_bytes(entry)
        if size is not None and size != entry.size_bytes:
            what = f"{entry.key!r} ({entry.dtype} {list(entry.shape)})"
            yield finding("BAD_ENTRY_SIZE", f"{what} needs {size:,} bytes and has {entry.size_bytes:,}.")


def _ends(index: BundleIndex) -> dict[int, tuple[int, str]]:
    """Return, for each data file, where the last tensor in it ends and which one that is."""
    ends: dict[int, tuple[int, str]] = {}
    for entry in index.entries.values():
        for piece in index.pieces[entry.key] if entry.slices else (entry,):
            end = piece.offset + piece.size_bytes
            if piece.shard not in ends or end > ends[piece.shard][0]:
                ends[piece.shard] = (end, entry.key)
    return ends


def check_requested(where: str, reachability: Reachability, tensors: Mapping[str, TensorEntry]) -> Iterator[Finding]:
    """Find tensors that loading asks for and the checkpoint lacks, or has as another type or shape."""
    requested = reachability.requested
    missing = [key for key in requested if key not in tensors]
    if missing:
        yield finding("MISSING_TENSOR", f"{where}: {len(missing)} of {len(requested)}, e.g. {missing[0]!r}.")
    for key, dtype in requested.items():
        entry = tensors.get(key)
        if entry is None:
            continue
        shape = None if entry.slices else reachability.expected_shape(key)
        if entry.dtype != dtype:
            yield finding("MISMATCHED_TENSOR", f"{where}: {key!r} is {entry.dtype}, asked as {dtype}.")
        elif shape is not None and None not in shape and shape != entry.shape:
            what = f"has the shape {list(entry.shape)}, its variable {list(shape)}"
            yield finding("MISMATCHED_TENSOR", f"{where}: {key!r} {what}.")


def verify_tensors(bundle: BundleReader) -> Iterator[Finding]:
    """Read every tensor, in the order of the files, and compare its checksum."""
    stored: dict[tuple[int, int, int], TensorEntry] = {}  # what is there under several names is read once
    for entry in bundle.entries.values():
        for piece in bundle.pieces(entry):
            stored.setdefault((piece.shard, piece.offset, piece.size_bytes), piece)
    pieces = [stored[place] for place in sorted(stored)]
    size_bytes = sum(piece.size_bytes for piece in pieces)
    with Progress("verifying", total=PROGRESS_STEPS) if sys.stderr.isatty() else contextlib.nullcontext() as progress:
        stretches = list(_stretches(pieces, size_bytes / PROGRESS_STEPS))
        for stretch, found in zip(stretches, _verified(bundle, stretches, size_bytes), strict=True):
            yield from found
            if progress is not None:
                progress.advance(stretch[0].key)


def _verified(bundle: BundleReader, stretches: list[list[TensorEntry]], size_bytes: int) -> Iterator[list[Finding]]:
    """Verify tensors, two stretches at once where that is worth it: one is read while the other is summed up."""
    if size_bytes < PARALLEL_BYTES or not bundle.is_local:
        yield from (_verify(bundle, stretch) for stretch in stretches)
        return
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(PARALLEL) as pool:
        yield from pool.map(lambda stretch: _verify(bundle, stretch), stretches)


def _stretches(pieces: list[TensorEntry], size_bytes: float) -> Iterator[list[TensorEntry]]:
    """Cut a list of tensors into parts of about one size."""
    part: list[TensorEntry] = []
    total = 0
    for piece in pieces:
        part.append(piece)
        total += piece.size_bytes
        if total >= size_bytes:
            yield part
            part, total = [], 0
    if part:
        yield part


def _verify(bundle: BundleReader, pieces: Iterable[TensorEntry]) -> list[Finding]:
    found = []
    for piece in pieces:
        try:
            bundle.verify(piece._replace(slices=()))
        except ModelError as error:
            if error.code == "CRC_MISMATCH":
                found.append(finding("CRC_MISMATCH", error.message))
            # That a data file is missing or too short was found before, once and not for each tensor.
    return found
