"""Packages that come with an extra of servegraph, and the error where one of them is not installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

from servegraph.errors import InputError

# One row a module that is imported only where it is needed: the extras that bring it.
EXTRAS: dict[str, tuple[str, ...]] = {
    "tensorflow": ("train", "serve"),
    "keras": ("train", "serve"),  # this and the next three: TensorFlow needs them too
    "numpy": ("train", "serve"),
    "h5py": ("train", "serve"),
    "ml_dtypes": ("train", "serve"),
    "tensorboard": ("train",),
    "kfp": ("train", "cloud"),
    "httptools": ("serve", "train"),
    "orjson": ("serve", "train"),
    "prometheus_client": ("serve", "train"),
    "simdjson": ("serve", "train"),
    "google.cloud": ("cloud",),
    "google.cloud.aiplatform_v1": ("cloud",),
    "google.cloud.storage": ("cloud", "train"),
    "google.auth": ("cloud",),
    "googleapiclient": ("cloud",),
    "google_auth_httplib2": ("cloud",),
    "httplib2": ("cloud",),
    "kubernetes": ("cloud",),
    "hatchling": ("package",),
    "packaging": ("package",),
    "docker": ("all",),
}


def of_extra(error: ImportError) -> InputError | None:
    """Return the error of a package that an extra brings, None where the missing module is somebody else's.

    A module missing inside of an installed package is that package's defect, and none of these.
    """
    if not isinstance(error, ModuleNotFoundError) or error.name not in EXTRAS:
        return None
    return package_missing(error.name)


def require(modules: Sequence[str], what: str) -> None:
    """Raise `InputError` (code `PACKAGE_MISSING`) where `what` needs modules that are not installed."""
    if missing := [name for name in modules if importlib.util.find_spec(name) is None]:
        raise _error(f"{what} needs packages that are not installed: {', '.join(missing)}.", EXTRAS[missing[0]])


def package_missing(module: str, what: str = "This") -> InputError:
    """Return the error of a missing package, by the name of its module; `what` needs it."""
    return _error(f"{what} needs the package {module}, which is not installed.", EXTRAS[module])


def _error(message: str, extras: Sequence[str]) -> InputError:
    first, *others = (f"'servegraph[{extra}]'" for extra in extras)
    also = f" ({', '.join(others)} brings it too)" if others else ""
    return InputError(message, code="PACKAGE_MISSING", fix=f"pip install {first}{also}")
