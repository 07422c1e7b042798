"""The component: finds the version now live inside a pipeline."""

from typing import NamedTuple

from kfp import dsl

from servegraph import _image


@dsl.component(base_image=_image.SLIM, install_kfp_package=False)  # type: ignore[untyped-decorator]
def live_version(
    name: str,
    target: str = "local",
    location: str = "",
    project: str = "",
    region: str = "",
    staging: str = "",
    namespace: str = "",
    api_url: str = "",
) -> NamedTuple("Live", [("version", str), ("uri", str)]):  # type: ignore[valid-type]
    """Find the version of a model that has most of the traffic; nothing deployed yet is no error.

    Args:
        name: Name of the model on the target.
        target: Where it is deployed: local, vertex, ai-platform or kserve.
        location: Where on the target; for `local` the root directory.
        project: Google Cloud project, for vertex and ai-platform.
        region: Region, for vertex and ai-platform.
        staging: Place for the model files as gs://bucket/prefix, for all but local.
        namespace: Kubernetes namespace, for kserve.
        api_url: Another address of the service, such as a private endpoint's.

    Returns:
        version: The version; empty where there is none.
        uri: Where its files are; empty where there is none.
    """
    from collections import namedtuple

    from servegraph.live_version.live import find_live

    Live = namedtuple("Live", ["version", "uri"])
    return Live(*find_live(name, target, (location, project, region, staging, namespace, api_url)))
