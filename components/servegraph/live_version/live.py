"""Which version of a model is live, and where its files are."""

from __future__ import annotations

from servegraph.deploy_version.targets import Place, open_target
from servegraph.errors import InputError


def find_live(name: str, target: str, place: tuple[str, str, str, str, str, str]) -> tuple[str, str]:
    """Return the version with most of the traffic and the place of its files, both empty where there is none.

    A version whose files are gone is none, which is said as a warning: there is nothing to compare with.
    `place` is root, project, region, staging, namespace and api_url, empty where not given.

    Raises:
        InputError: the target needs more to be found (code `NO_PLACE`).
        DeployRefused: the service cannot be asked.
    """
    root, project, region, staging, namespace, api_url = (part or None for part in place)
    opened = open_target(target, Place(root, project, region, staging, namespace, None, api_url))
    try:
        found = opened.versions(name)
    except InputError as error:
        if error.code != "NOT_DEPLOYED":
            raise
        return "", ""
    live = next((version for version in found.versions if version.version == found.live), None)
    if live and live.files_lost:
        print(f"warning: the files of version {live.version} of {name}, which is live, are gone from {live.files}")
        return "", ""
    return (live.version, live.files) if live else ("", "")
