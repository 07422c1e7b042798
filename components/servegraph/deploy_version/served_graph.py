"""Which MetaGraph of a model a version is: the one for GPUs only on a GPU, and of several that one alone.

Servers load what is tagged `serve` and cannot always be told to load anything else (Vertex AI's prebuilt containers, a
KServe storage URI), and TensorFlow Serving refuses on a CPU what is placed on a GPU. So the choice is made before.
"""

from __future__ import annotations

from collections.abc import Sequence

from servegraph.deploy_version.plan import DeployRequest
from servegraph.machines.choose import tags_for
from servegraph.savedmodel.golden_file import golden_of
from servegraph.savedmodel.graph import SERVING_TAG
from servegraph.savedmodel.graph_reader import TEXT
from servegraph.savedmodel.layout import GOLDEN_FILE
from servegraph.savedmodel.one_meta_graph import OneMetaGraph
from servegraph.storage import Directory


def chosen_tags(tag_sets: Sequence[tuple[str, ...]], request: DeployRequest, graph_file: str) -> tuple[str, ...]:
    """Return the tags of the MetaGraph to deploy; empty where the model is deployed as it is.

    With machines to fall back on, all must have a GPU for it to be the one for GPUs.
    """
    on_gpu = all(config.accelerator_type for config in (request.config, *request.fallbacks))
    tags = tags_for(tuple(tag_sets), on_gpu=on_gpu)
    is_as_it_is = not tags or tuple(tag_sets) == ((SERVING_TAG,),) or graph_file == TEXT
    return () if is_as_it_is else tags


def served(directory: Directory, tags: tuple[str, ...]) -> Directory:
    """Return the model as it is deployed: with the MetaGraph of these tags alone, and its golden requests."""
    if not tags:
        return directory
    replaced: dict[str, bytes] = {}
    if any(info.path == GOLDEN_FILE for info in directory.files()):
        replaced[GOLDEN_FILE] = golden_of(directory.read_bytes(GOLDEN_FILE), tags)
    return OneMetaGraph(directory, tags, replaced)
