"""What a connection answers before the request is one that a model could be asked, or after it is too late for one."""

from __future__ import annotations

from servegraph.errors import Refusal, RequestError


def too_many_connections() -> RequestError:
    """Return the error for one client more than the limit."""
    fix = "Try again shortly, and use a connection for many requests."
    return RequestError("Too many connections.", code="UNAVAILABLE", fix=fix)


def not_http(error: Exception) -> RequestError:
    """Return the error for bytes that the parser does not take."""
    fix = "Speak plain HTTP to this port, without TLS."
    return RequestError(f"Not an HTTP request: {error}.", code="INVALID_ARGUMENT", fix=fix)


def headers_too_large() -> RequestError:
    """Return the error for headers above the limit."""
    return RequestError(
        "The headers are too large.", code="HEADERS_TOO_LARGE", fix="Send fewer headers, or shorter ones."
    )


def transfer_coding() -> RequestError:
    """Return the error for a body in another coding than chunks."""
    fix = "Send the body chunked, or with its Content-Length."
    return RequestError("Of transfer codings only chunked is understood.", code="UNIMPLEMENTED", fix=fix)


def too_slow() -> RequestError:
    """Return the error for a request of which the rest does not come."""
    fix = "Send headers and body without long pauses."
    return RequestError("The request did not come in time.", code="REQUEST_TIMEOUT", fix=fix)


def too_much_held() -> RequestError:
    """Return the error for a body that no memory is left for."""
    fix = "Send it again shortly, or fewer rows at once."
    return RequestError("The server holds too many large requests already.", code="UNAVAILABLE", fix=fix)


def stopped() -> RequestError:
    """Return the error for a request that the end of the server came before."""
    fix = "Send it again; another server, or this one when it is up, has the answer."
    return RequestError("The server stopped before it had the answer.", code="UNAVAILABLE", fix=fix)


def defect(error: BaseException | None) -> Refusal:
    """Return the error for what went wrong in here while a request was read."""
    fix = "Report it with the request that it is about."
    return Refusal(f"A defect of this server: {error!r}.", code="INTERNAL", fix=fix)
