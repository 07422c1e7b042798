"""How to serve, as values: what the command lines and Vertex's environment say comes together here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from servegraph.errors import InputError
from servegraph.serve.routes import Aliases
from servegraph.serve.vertex import ANY_HOST, contract_of
from servegraph.storage.local_paths import require_local

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8501  # TF Serving's REST port
DEFAULT_MAX_BODY_BYTES = 8 << 20  # some 10,000 wide rows, or an image as base64; a few at once do no harm
DEFAULT_WAITING = 1024
DEFAULT_TIMEOUT_S = 60.0
DEFAULT_NAME = "model"  # as in TF Serving's image
TRUST_VARIABLE = "SERVEGRAPH_TRUST_CODE"


@dataclass(frozen=True)
class ServeOptions:
    """How to serve: `name` limits it to one model, `listen_fd` is a listening socket that was inherited.

    `aliases` are further targets, as Vertex names them. With `predictor` (module:Class) that class answers instead of
    TensorFlow, for the artifacts at `artifacts_uri`. With `artifacts_uri` alone what lies there is the only model.
    `uses_settings`: whether what `servegraph measure --save` stored with a model is followed. `trusts_code`: whether
    the routines that models bring may run.
    """

    root: Path | None
    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    name: str | None = None
    max_body_bytes: int = DEFAULT_MAX_BODY_BYTES
    batch_rows: int | None = None  # None: as stored with the model, else the default
    waiting: int = DEFAULT_WAITING
    timeout_s: float = DEFAULT_TIMEOUT_S
    access_log: bool = False
    is_probed: bool = True
    uses_settings: bool = True
    listen_fd: int | None = None
    exit_with_stdin: bool = False  # stop when standard input ends: when the program that started this one is gone
    aliases: Aliases = ()
    predictor: str | None = None
    artifacts_uri: str = ""
    trusts_code: bool = False


def options_of(
    environment: Mapping[str, str],
    root: str | None,
    host: str | None,
    port: int | None,
    predictor: str | None,
    **more: Any,
) -> ServeOptions:
    """Return the options for what was given; what is None comes from Vertex's variables, else from the defaults.

    `MODEL_BASE_PATH` (the root, where nothing else names one) and on Vertex AI `MODEL_NAME` are those of TF Serving's
    image. A root at gs:// is artifacts: fetched at the start and not followed. `SERVEGRAPH_TRUST_CODE=1` is what a
    deploy with --trust-code sets where it cannot give an argument.

    Raises:
        InputError: there is nothing to serve (code `NOTHING_TO_SERVE`), the root is an address with one
            slash (`NOT_LOCAL`), or a variable cannot be used.
    """
    vertex = contract_of(environment)
    more["trusts_code"] = bool(more.get("trusts_code")) or environment.get(TRUST_VARIABLE) == "1"
    artifacts_uri = vertex.storage_uri if vertex is not None and root is None else ""
    if root is None and vertex is not None:
        predictor = predictor or vertex.predictor
        more["name"] = more.get("name") or environment.get("MODEL_NAME")
    if root is None and not artifacts_uri:
        root = environment.get("MODEL_BASE_PATH") or None
    is_remote = root is not None and "://" in root
    if root is not None and is_remote:
        artifacts_uri = root
    if root is None and not artifacts_uri and predictor is None:
        raise InputError(
            "There is nothing to serve.",
            code="NOTHING_TO_SERVE",
            fix="Give ROOT, a directory of models, or set AIP_STORAGE_URI as Vertex AI does.",
        )
    return ServeOptions(
        root=None if root is None or is_remote else require_local(root),
        host=host or (DEFAULT_HOST if vertex is None else ANY_HOST),
        port=port if port is not None else DEFAULT_PORT if vertex is None else vertex.port,
        aliases=() if vertex is None else vertex.aliases,
        predictor=predictor,
        artifacts_uri=artifacts_uri,
        **more,
    )
