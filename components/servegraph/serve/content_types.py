"""What the Vertex SDK's `DefaultSerializer` takes and gives, for hosted routines: JSON, said to be JSON.

Source: google/cloud/aiplatform/prediction/serializer.py and handler_utils.py. It refuses a request without a content
type as well; here that is taken for JSON, as everywhere else in this server.
"""

from __future__ import annotations

from collections.abc import Mapping

from servegraph.errors import RequestError

_JSON = b"application/json"
_ANY = (_JSON, b"*/*")


def check_json_types(headers: Mapping[bytes, bytes]) -> None:
    """Check the headers, by lower-case name, of a request to a routine.

    Raises:
        RequestError: its content type is not JSON, or it does not accept JSON (both 400, as with the SDK).
    """
    given = headers.get(b"content-type")
    if given is not None and _without_parameters(given) != _JSON:
        raise RequestError(
            f"Unsupported content type of the request: {given.decode('latin-1')}.",
            fix="A routine is sent JSON, with the content type application/json.",
        )
    accept = headers.get(b"accept", _JSON)
    if not any(_without_parameters(kind) in _ANY for kind in accept.split(b",")):
        raise RequestError(
            f"Unsupported accept of the response: {accept.decode('latin-1')}.",
            fix="A routine answers application/json.",
        )


def _without_parameters(value: bytes) -> bytes:
    return value.partition(b";")[0].strip().lower()
