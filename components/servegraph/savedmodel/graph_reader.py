"""Scans `saved_model.pb` (or `.pbtxt`) into the values of `graph`.

One pass, bounded memory: nodes are counted by operation, only watched ones are kept, and the payload of a
large constant is never read. `GraphFile.nodes` walks one body again where edges are needed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from types import TracebackType

from servegraph.errors import ModelError
from servegraph.savedmodel.graph import Body, MetaGraph, Node, SavedModelGraph
from servegraph.savedmodel.meta_graph import read_arguments, read_meta_graph
from servegraph.savedmodel.nodes import MAX_NODE_BYTES, NO_ATTRS, Wanted, read_nodes
from servegraph.savedmodel.structure import check_structure
from servegraph.savedmodel.wire import BytesFile, Malformed, Window
from servegraph.storage.directory import GRAPH_FILES, Directory, FileInfo

BINARY, TEXT = GRAPH_FILES
CHUNKED = "saved_model.cpb"
REMOTE_WINDOW_BYTES, LOCAL_WINDOW_BYTES = 1 << 23, 1 << 20
REMOTE_KEPT_BYTES = 1 << 25
MAX_META_GRAPHS = 1000  # models have a handful; an empty one takes a few bytes of the file and kilobytes of memory
_DAMAGED = "Export the model again, or copy the whole directory again from where it was written."


class GraphFile:
    """The graph file of a SavedModel, open for reading; `.pb` goes before `.pbtxt`, as in TensorFlow.

    Raises:
        ModelError: the directory has neither (`NOT_A_SAVED_MODEL`, `CHUNKED_GRAPH`), or the file is damaged
            (`GRAPH_CORRUPT`).
    """

    def __init__(self, directory: Directory, files: Sequence[FileInfo] | None = None) -> None:
        """Open the file; a `.pbtxt` is rewritten into the binary form in memory, without its constants.

        `files` are those of the directory, if they were listed before: listing can be a request.
        """
        self.uri = directory.uri
        self.path = _graph_path(directory.uri, directory.files() if files is None else files)
        self._file = directory.open(self.path)
        self.size_bytes = self._file.size_bytes
        # Reading a local file twice costs nothing, a second request does: what came from afar is kept.
        is_remote = "://" in directory.uri
        try:
            if self.path == TEXT:
                from servegraph.savedmodel.pbtxt import transcode

                with self.explained():
                    content = transcode(self._file)
                self._file.close()
                self._file = BytesFile(content)
            self._window = Window(
                self._file,
                max_bytes=REMOTE_WINDOW_BYTES if is_remote else LOCAL_WINDOW_BYTES,
                keep_bytes=REMOTE_KEPT_BYTES if is_remote else 0,
            )
        except BaseException:
            self._file.close()
            raise

    def scan(self) -> SavedModelGraph:
        """Read everything but the nodes' edges and the constants."""
        with self.explained():
            if not self.size_bytes:
                raise Malformed("the file is empty")
            return _scan(self._window, self.path, self.size_bytes)

    def check_structure(self, max_bytes: int) -> None:
        """Walk through all messages of a file of at most `max_bytes`, as protobuf does; a larger one is left alone.

        Raises:
            ModelError: protobuf would not read the file (`GRAPH_CORRUPT`).
        """
        if self._window.size_bytes <= max_bytes:
            with self.explained():
                check_structure(self._window.read(0, self._window.size_bytes))

    def nodes(self, body: Body, wanted: Wanted = NO_ATTRS, max_attr_bytes: int = MAX_NODE_BYTES) -> dict[str, Node]:
        """Return all nodes of a body by name, with the attributes that are `wanted` of each operation.

        Attributes above `max_attr_bytes` are left out: they are the contents of constants.
        """
        with self.explained():
            return read_nodes(self._window, body, wanted, max_attr_bytes)

    def arguments(self, function: Body) -> list[str]:
        """Return the names of a function's arguments in order."""
        with self.explained():
            return read_arguments(self._window, function)

    @contextlib.contextmanager
    def explained(self) -> Iterator[None]:
        """Turn what the byte level raises inside of the block into the error of the whole file."""
        try:
            yield
        except Malformed as exc:
            raise ModelError(f"{self.uri}/{self.path}: {exc}.", code="GRAPH_CORRUPT", fix=_DAMAGED) from exc

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> GraphFile:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        self.close()


def read_saved_model(directory: Directory) -> SavedModelGraph:
    """Read the graph of a SavedModel once. See `GraphFile` for what it raises."""
    with GraphFile(directory) as file:
        return file.scan()


def _graph_path(uri: str, files: Sequence[FileInfo]) -> str:
    paths = {info.path for info in files}
    for path in (BINARY, TEXT):
        if path in paths:
            return path
    if CHUNKED in paths:
        raise ModelError(
            f"{uri} has its graph in {CHUNKED}, in pieces.",
            code="CHUNKED_GRAPH",
            fix="Export without experimental_image_format: TensorFlow's own servers do not read it.",
        )
    raise ModelError(
        f"{uri} has neither {BINARY} nor {TEXT}.",
        code="NOT_A_SAVED_MODEL",
        fix="Give the directory that holds saved_model.pb.",
    )


def _scan(window: Window, path: str, size_bytes: int) -> SavedModelGraph:
    schema_version = 0
    meta_graphs: list[MetaGraph] = []
    for field in window.fields(0, window.size_bytes):
        if field.number == 1 and not field.end:
            schema_version = field.value
        elif field.number == 2 and field.end:
            if len(meta_graphs) == MAX_META_GRAPHS:
                raise Malformed(f"there are more than {MAX_META_GRAPHS} MetaGraphs in it")
            meta_graphs.append(read_meta_graph(window, field.start, field.end))
        else:
            raise Malformed(f"field {field.number} is not a SavedModel's: the file is damaged or something else")
    if not meta_graphs:
        raise Malformed("there is no MetaGraph in it")
    return SavedModelGraph(path, schema_version, tuple(meta_graphs), size_bytes)
