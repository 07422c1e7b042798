"""Names of resources that options give, in the form that the service wants: found out before the upload, not after."""

from __future__ import annotations

import re
from typing import NamedTuple

from servegraph.deploy_version.plan import DeployRequest, ServiceOptions
from servegraph.errors import DeployRefused, InputError


class _Form(NamedTuple):
    """An option, what its value looks like, and the words for it."""

    option: str
    pattern: str
    example: str


# Source: the descriptions in the discovery document of aiplatform v1 (EncryptionSpec, Endpoint.network,
# ReservationAffinity, DeployedModel.serviceAccount).
_FORMS = (
    _Form(
        "encryption_key",
        r"projects/[^/]+/locations/[^/]+/keyRings/[^/]+/cryptoKeys/[^/]+",
        "projects/P/locations/L/keyRings/R/cryptoKeys/K",
    ),
    _Form("network", r"projects/\d+/global/networks/[^/]+", "projects/NUMBER/global/networks/NAME"),
    _Form("reservation", r"projects/[^/]+/zones/[^/]+/reservations/[^/]+", "projects/P/zones/Z/reservations/NAME"),
    _Form("service_account", r"[^@\s/]+@[^@\s/]+\.[^@\s/]+", "NAME@PROJECT.iam.gserviceaccount.com"),
)


def check_forms(options: ServiceOptions, region: str | None) -> None:
    """Check the names of resources, and that those of a place are in `region`.

    Raises:
        InputError: one is not formed as the service wants it (code `BAD_RESOURCE_NAME`), or lies elsewhere
            (code `OTHER_REGION`).
    """
    for form in _FORMS:
        value = getattr(options, form.option)
        if value is not None and not re.fullmatch(form.pattern, value):
            name = form.option.replace("_", " ")
            raise InputError(f"{value!r} is no {name}.", code="BAD_RESOURCE_NAME", fix=f"Write it as {form.example}.")
    if region is None:
        return
    if options.encryption_key and options.encryption_key.split("/")[3] != region:
        raise _elsewhere("encryption key", options.encryption_key, region)
    if options.reservation and not options.reservation.split("/")[3].startswith(f"{region}-"):
        raise _elsewhere("reservation", options.reservation, region)


def check_together(request: DeployRequest) -> None:
    """Refuse what does not go together on Vertex AI.

    Raises:
        DeployRefused: spot machines out of a reservation (code `SPOT_AND_RESERVATION`).
        InputError: less than all traffic on a private endpoint (code `NO_TRAFFIC_SPLIT`).
    """
    options = request.service
    if options.spot and options.reservation:
        raise DeployRefused(
            "Spot machines are not taken from a reservation.", code="SPOT_AND_RESERVATION", fix="Give one of the two."
        )
    if options.network and (request.traffic_steps or request.traffic_percent != 100):
        raise InputError(
            "An endpoint in a private network has one version, with all traffic.",
            code="NO_TRAFFIC_SPLIT",
            fix="Give --traffic 100 and no --traffic-steps, or leave --network out.",
        )


def _elsewhere(what: str, value: str, region: str) -> InputError:
    return InputError(f"The {what} {value} is not in {region}.", code="OTHER_REGION", fix=f"Give one of {region}.")
