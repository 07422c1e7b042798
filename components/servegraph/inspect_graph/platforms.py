"""Would it deploy there: what a platform asks for beyond a sound model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import date

from servegraph.errors import NoMachineFits
from servegraph.inspect_graph.explanations import explanations
from servegraph.inspect_graph.findings import Finding, finding
from servegraph.inspect_graph.runtimes import RUNTIMES, VERDICTS, compatibility
from servegraph.inspect_graph.signatures import default_signature
from servegraph.machines import this_machine
from servegraph.machines.catalog import load
from servegraph.machines.choose import choose
from servegraph.machines.decision import ChoiceRequest
from servegraph.savedmodel.graph import SERVING_TAG, SavedModelGraph
from servegraph.storage.directory import FileInfo

# Platforms that load a model as TensorFlow Serving does, with its saver. Our own server loads it in Python.
_LOAD_WITH_THE_SAVER = ("ai-platform", "vertex", "kserve")
# Platforms whose prediction route calls serving_default and nothing else unless it is told a name.
_CALL_THE_DEFAULT = ("ai-platform", "vertex")


def check_platform(
    platform: str,
    files: list[FileInfo],
    graph: SavedModelGraph | None,
    needed_ops: frozenset[str],
    today: date,
) -> Iterator[Finding]:
    """Find what keeps a sound model from being deployed on a platform.

    Raises:
        InputError: the platform is not known (`UNKNOWN_PLATFORM`).
    """
    yield from _check_limits(platform, files, graph, today)
    if graph is None:
        return
    if platform in _CALL_THE_DEFAULT and default_signature(graph) is None:
        yield finding("NO_DEFAULT_FOR_PLATFORM", f"{platform} finds none under the tag {SERVING_TAG}.")
    if platform == "ai-platform":
        yield from _check_binary_names(graph)
    runtimes = [runtime for runtime in RUNTIMES if runtime.platform == platform]
    for item in compatibility(graph, needed_ops, runtimes):
        if item.verdict != "loads":
            lacks = f", which lacks {', '.join(item.missing_ops[:5])}" if item.missing_ops else ""
            yield finding(
                "OLD_RUNTIME",
                f"{item.runtime.name} has TensorFlow {item.runtime.tf_version}{lacks}: {VERDICTS[item.verdict]}.",
            )
    answer = explanations(platform, graph, today)
    verdict = "can explain it" if answer.possible else "cannot explain it"
    yield finding("EXPLANATIONS", f"{platform} {verdict}: {answer.reason}")


def as_loaded_on(platform: str, findings: Iterable[Finding]) -> list[Finding]:
    """Return findings with what matters only to some servers judged by how the platform loads a model."""
    if platform not in _LOAD_WITH_THE_SAVER:
        return list(findings)
    return [
        finding("UNRESTORED_VARIABLE", f"{item.message} {platform} loads as TensorFlow Serving does.")
        if item.code == "RESTORED_IN_PYTHON_ONLY"
        else item
        for item in findings
    ]


def _check_limits(
    platform: str, files: list[FileInfo], graph: SavedModelGraph | None, today: date
) -> Iterator[Finding]:
    size_bytes = sum(info.size_bytes for info in files)
    tag_sets = tuple(meta_graph.tags for meta_graph in graph.meta_graphs) if graph else ()
    try:
        choose(
            ChoiceRequest(
                model_bytes=max(size_bytes, 1),  # an empty graph file is a finding of its own
                today=today,
                platform=platform,  # type: ignore[arg-type]  # choose() checks it
                tag_sets=tag_sets,
                this_machine=this_machine.read() if platform == "local" else None,
            )
        )
    except NoMachineFits as error:
        yield finding("NO_MACHINE", error.message, error.fix)
    row = load().platforms.get(platform)
    if row is None:  # local: no limit but the machine's own
        return
    if row.ended is not None and row.ended <= today:
        yield finding("PLATFORM_ENDED", f"{row.title} was shut down on {row.ended}.")
    if row.families and size_bytes > (most := row.largest_family.max_model_bytes):
        yield finding("OVER_SIZE_LIMIT", f"{size_bytes:,} bytes are more than {row.title}'s {most:,}.")
    limit = row.limits.get("max_model_files")
    if limit is not None and len(files) > limit.value:
        yield finding("TOO_MANY_FILES", f"{len(files):,} files are more than {row.title}'s {limit.value:,}.")


def _check_binary_names(graph: SavedModelGraph) -> Iterator[Finding]:
    signature = default_signature(graph)
    if signature is None:
        return
    infos = {**signature.inputs, **signature.outputs}
    names = [name for name, info in infos.items() if info.dtype == "string" and not name.endswith("_bytes")]
    if names:
        yield finding("BINARY_NAME", f"These are strings: {', '.join(names)}.")
