"""Packages that come with an extra of servegraph, and the error where one of them is not installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

from servegraph.errors import InputError

# One row a module that is imported only where it is needed: the extras that bring it, first that of most verbs which
# need it (README has the table).
EXTRAS: dict[str, tuple[str, ...]] = {
    "tensorflow": ("serve", "train"),
    "keras": ("serve", "train"),  # this and the next three: TensorFlow needs them too
    "numpy": ("serve", "train"),
    "h5py": ("serve", "train"),
    "ml_dtypes": ("serve", "train"),
    "tensorboard": ("train",),
    "kfp": ("cloud", "train"),
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


def require(modules: Sequence[str], what: str, extra: str = "") -> None:
    """Raise `InputError` (code `PACKAGE_MISSING`) where `what` needs modules that are not installed.

    The extras that bring all of them are named; first `extra`, the one that all of `what` needs.
    """
    if missing := [name for name in modules if importlib.util.find_spec(name) is None]:
        extras = [one for one in EXTRAS[missing[0]] if all(one in EXTRAS[name] for name in missing)]
        extras.sort(key=lambda one: one != extra)
        raise _error(f"{what} needs packages that are not installed: {', '.join(missing)}.", extras)


def package_missing(module: str, what: str = "This") -> InputError:
    """Return the error of a missing package, by the name of its module; `what` needs it."""
    return _error(f"{what} needs the package {module}, which is not installed.", EXTRAS[module])


def _error(message: str, extras: Sequence[str]) -> InputError:
    first, *others = (f"'servegraph[{extra}]'" for extra in extras)
    also = f" ({', '.join(others)} brings it too)" if others else ""
    return InputError(message, code="PACKAGE_MISSING", fix=f"pip install {first}{also}")
