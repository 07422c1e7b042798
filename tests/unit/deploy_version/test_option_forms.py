"""Names of resources and combinations that the service would refuse after the upload."""

import pytest

from servegraph.deploy_version.option_forms import check_forms, check_together
from servegraph.deploy_version.plan import DeployRequest, ServiceOptions
from servegraph.errors import DeployRefused, InputError

GOOD = {
    "encryption_key": "projects/p/locations/us-central1/keyRings/r/cryptoKeys/k",
    "network": "projects/123/global/networks/n",
    "reservation": "projects/p/zones/us-central1-a/reservations/r",
    "service_account": "me@p.iam.gserviceaccount.com",
}


@pytest.mark.parametrize("option", GOOD)
def test_one_form_each(option):
    check_forms(ServiceOptions(**{option: GOOD[option]}), "us-central1")
    for wrong in ("name", GOOD[option] + "/more", ""):
        with pytest.raises(InputError) as refused:
            check_forms(ServiceOptions(**{option: wrong}), "us-central1")
        assert refused.value.code == "BAD_RESOURCE_NAME"


@pytest.mark.parametrize("option", ["encryption_key", "reservation"])
def test_what_lies_elsewhere(option):
    with pytest.raises(InputError, match="is not in europe-west1") as refused:
        check_forms(ServiceOptions(**{option: GOOD[option]}), "europe-west1")
    assert refused.value.code == "OTHER_REGION"
    check_forms(ServiceOptions(**{option: GOOD[option]}), None)


@pytest.mark.parametrize(
    ("options", "more", "code"),
    [
        ({"spot": True, "reservation": GOOD["reservation"]}, {}, "SPOT_AND_RESERVATION"),
        ({"network": GOOD["network"]}, {"traffic_percent": 20}, "NO_TRAFFIC_SPLIT"),
        ({"network": GOOD["network"]}, {"traffic_percent": 0}, "NO_TRAFFIC_SPLIT"),
        ({"network": GOOD["network"]}, {"traffic_steps": (20,)}, "NO_TRAFFIC_SPLIT"),
    ],
)
def test_what_does_not_go_together(options, more, code):
    with pytest.raises((DeployRefused, InputError)) as refused:
        check_together(DeployRequest("m", "m", service=ServiceOptions(**options), **more))
    assert refused.value.code == code
    check_together(DeployRequest("m", "m", service=ServiceOptions(**options | {"spot": False})))
