"""What of a model a version is: its own files, and of several MetaGraphs one, that for GPUs only on a GPU.

Servers load what is tagged `serve` and cannot always be told to load anything else (Vertex AI's prebuilt containers, a
KServe storage URI), and TensorFlow Serving refuses on a CPU what is placed on a GPU. So the choice is made before.
Training checkpoints and summaries stay behind (R15), and so does all else that no server of SavedModels reads.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from servegraph.deploy_version.plan import DeployRequest
from servegraph.explanations.rules import is_prebuilt
from servegraph.machines.choose import tags_for
from servegraph.routine.manifest import Routine
from servegraph.savedmodel.golden_file import golden_of
from servegraph.savedmodel.graph import SERVING_TAG
from servegraph.savedmodel.graph_reader import TEXT
from servegraph.savedmodel.layout import GOLDEN_FILE, without_strays
from servegraph.savedmodel.one_meta_graph import OneMetaGraph
from servegraph.storage import Directory

_OURS_OR_TF_SERVING = re.compile(r"(^|/)(python-serving|tensorflow/serving)(:[^/]*|@[^/]*)?$")  # in any registry


def chosen_tags(tag_sets: Sequence[tuple[str, ...]], request: DeployRequest, graph_file: str) -> tuple[str, ...]:
    """Return the tags of the MetaGraph to deploy; empty where the model is deployed as it is.

    With machines to fall back on, all must have a GPU for it to be the one for GPUs.
    """
    on_gpu = all(config.accelerator_type for config in (request.config, *request.fallbacks))
    tags = tags_for(tuple(tag_sets), on_gpu=on_gpu)
    is_as_it_is = not tags or tuple(tag_sets) == ((SERVING_TAG,),) or graph_file == TEXT
    return () if is_as_it_is else tags


def for_own_code(request: DeployRequest, routine: Routine | None) -> bool:
    """Whether a routine or an image of one's own answers: it may read whatever lies beside the model."""
    image = request.service.image
    return routine is not None or (
        image is not None and not is_prebuilt(image) and not _OURS_OR_TF_SERVING.search(image)
    )


def served(directory: Directory, tags: tuple[str, ...], *, strays: bool) -> Directory:
    """Return the model as it is deployed: with the MetaGraph of these tags alone, and its golden requests.

    With `strays` files that are no part of a SavedModel are among its own.
    """
    directory = directory if strays else without_strays(directory)
    if not tags:
        return directory
    replaced: dict[str, bytes] = {}
    if any(info.path == GOLDEN_FILE for info in directory.files()):
        replaced[GOLDEN_FILE] = golden_of(directory.read_bytes(GOLDEN_FILE), tags)
    return OneMetaGraph(directory, tags, replaced)
