"""What Vertex AI tells a custom container through its environment.

Source: "Custom container requirements for inference" in Google's documentation, contract version 1.0.0, and
containerSpec in aiplatform.v1's discovery document.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from servegraph.errors import InputError
from servegraph.serve.routes import Aliases, Route

ANY_HOST = "0.0.0.0"  # noqa: S104  # Vertex asks from outside the container
_DEFAULT_PORT = 8080
_SDK_HANDLER = "google.cloud.aiplatform.prediction.handler"


@dataclass(frozen=True)
class VertexContract:
    """Where to listen, what to answer there, and where the artifacts are ("" where there are none)."""

    port: int
    health_route: str | None
    predict_route: str | None
    storage_uri: str
    predictor: str | None

    @property
    def aliases(self) -> Aliases:
        """The two routes, which may be one path; both ask the only model."""
        routes = ((self.health_route, Route("ready")), (self.predict_route, Route("predict")))
        return [(path, route) for path, route in routes if path]


def contract_of(environment: Mapping[str, str]) -> VertexContract | None:
    """Return what the `AIP_…` variables say, None outside Vertex.

    `PREDICTOR_MODULE` and `PREDICTOR_CLASS` are those that the Vertex SDK bakes into images of custom routines.

    Raises:
        InputError: the port is no number (code `BAD_ENVIRONMENT`), or a handler other than the SDK's is named (code
            `NOT_HOSTED`).
    """
    if not any(name in environment for name in ("AIP_HTTP_PORT", "AIP_PREDICT_ROUTE", "AIP_STORAGE_URI", "AIP_MODE")):
        return None
    port = environment.get("AIP_HTTP_PORT") or str(_DEFAULT_PORT)
    if not port.isdecimal() or int(port) > 65535:
        raise InputError(
            f"AIP_HTTP_PORT is {port!r}, not a port.",
            code="BAD_ENVIRONMENT",
            fix="Set it to a number from 1 to 65535, or leave it unset.",
        )
    handler = environment.get("HANDLER_MODULE", _SDK_HANDLER), environment.get("HANDLER_CLASS", "PredictionHandler")
    if handler != (_SDK_HANDLER, "PredictionHandler"):
        raise not_hosted(f"HANDLER_MODULE and HANDLER_CLASS name {':'.join(handler)}")
    module, name = environment.get("PREDICTOR_MODULE"), environment.get("PREDICTOR_CLASS")
    return VertexContract(
        port=int(port),
        health_route=environment.get("AIP_HEALTH_ROUTE"),
        predict_route=environment.get("AIP_PREDICT_ROUTE"),
        storage_uri=environment.get("AIP_STORAGE_URI", ""),
        predictor=f"{module}:{name}" if module and name else None,
    )


def not_hosted(what: str) -> InputError:
    """Return the error for code that speaks the web framework of the SDK's server, which is not here."""
    return InputError(
        f"{what}. Handlers and serializers of one's own are not hosted.",
        code="NOT_HOSTED",
        fix="Move its work into preprocess and postprocess of the Predictor, or keep the image that the SDK built.",
    )
