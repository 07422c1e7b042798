"""What is loaded: follows the root in the background and swaps versions without a failed request.

One background thread looks at the files, loads what is new and then replaces, in one assignment, the
immutable record that requests read. A version that is no longer named is dropped by that: requests that hold
it finish first, and with the last of them Python frees it. Nothing is taken away before what replaces it has
loaded.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import logging
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from servegraph.errors import RequestError, ServegraphError
from servegraph.patience import waiting_for
from servegraph.serve.served import LoadedModel, LoadedVersion, ServedModel, settled
from servegraph.serve.versions import WantedModel, WantedVersion, model_names, wanted_model

_NOT_LOOKED = "The models are still being fetched or looked up."
RETRY_LOAD_S = 30.0  # a version that failed to load may have been half copied

_log = logging.getLogger(__name__)


def return_memory() -> None:
    """Give what has been freed back to the system, where the C library can: glibc keeps it for itself otherwise."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


class Repository:
    """The models below `root` (or the one called `only`), kept as the files say; or `fixed` ones, whatever they say."""

    def __init__(
        self,
        root: Path,
        load: Callable[[Path], LoadedModel],
        only: str | None = None,
        fixed: Mapping[str, WantedModel] | None = None,
    ) -> None:
        """Nothing is read before `follow` or `refresh`."""
        self._root = root
        self._load = load
        self._only = only
        self._fixed = fixed
        self._models: dict[str, ServedModel] = {}
        self._failures: dict[WantedVersion, tuple[float, LoadedVersion]] = {}
        self._complaints: dict[str, str] = {}
        self._has_looked = False
        self._stop = threading.Event()

    def follow(self, interval_s: float) -> None:
        """Refresh every `interval_s` seconds in a thread of its own, until `stop`."""

        def run() -> None:
            while not self._stop.is_set():
                try:
                    self.refresh()
                except Exception:  # a defect here must not freeze the versions for ever, unseen
                    _log.exception("the versions below %s could not be followed", self._root)
                self._stop.wait(interval_s)

        threading.Thread(target=run, name="follow-versions", daemon=True).start()

    def stop(self) -> None:
        """End `follow` after what it is loading."""
        self._stop.set()

    def names(self) -> list[str]:
        """Return the names of the models known so far."""
        return sorted(self._models)

    def has(self, name: str) -> bool:
        """Whether a model of this name is known so far."""
        return name in self._models

    def served(self, name: str | None) -> ServedModel:
        """Return the record of a model as it is now; of the only one where `name` is None.

        Raises:
            RequestError: there is no such model (code `NOT_FOUND`), or nobody knows yet (`UNAVAILABLE`).
        """
        models = self._models
        if name is None and len(models) == 1:
            return next(iter(models.values()))
        served = None if name is None else models.get(name)
        if served is None and not self._has_looked:
            raise RequestError(_NOT_LOOKED, code="UNAVAILABLE", fix="Try again shortly.")
        if served is None:
            what = f"Servable not found for request: Latest({name})." if name else "No model is named."
            raise RequestError(what, code="NOT_FOUND", fix=f"Models here: {', '.join(self.names()) or 'none'}.")
        return served

    def unready(self) -> str | None:
        """Return why requests should not be sent here yet, None where they may.

        A model that could not be loaded does not keep the others from theirs.
        """
        if not self._has_looked:
            return _NOT_LOOKED
        models = self._models.values()
        for served in models:
            if not served.answering and any(version.state == "LOADING" for version in served.versions.values()):
                return f"{served.name} is being loaded."
        return None if any(served.answering for served in models) else "No model is loaded."

    def versions(self) -> list[tuple[str, int, LoadedVersion]]:
        """Return every version of every model as it is now."""
        return [(name, number, version) for name, s in self._models.items() for number, version in s.versions.items()]

    def refresh(self) -> None:
        """Bring what is loaded in line with the files; what cannot be read or loaded is logged and left."""
        try:
            known = model_names(self._root) if self._fixed is None else list(self._fixed)
            names = [name for name in known if self._only in (None, name)]
        except ServegraphError as exc:
            self._complain("", exc)
            return
        changes = {name: wanted for name in names if (wanted := self._wanted(name)) is not None}
        # All are announced before the first one loads: requests hear "is being loaded" and not "not found".
        announced = {name: self._announce(name, wanted) for name, wanted in changes.items()}
        self._has_looked = True
        for name, wanted in changes.items():
            self._load_missing(name, wanted, announced[name])
        for name in self._models.keys() - set(names):
            self._publish(ServedModel(name))
            self._models = {other: served for other, served in self._models.items() if other != name}

    def _wanted(self, name: str) -> WantedModel | None:
        try:
            wanted = wanted_model(self._root / name) if self._fixed is None else self._fixed[name]
        except ServegraphError as exc:
            self._complain(name, exc)
            return None
        self._complaints.pop(name, None)
        return wanted

    def _announce(self, name: str, wanted: WantedModel) -> dict[int, LoadedVersion]:
        """Publish what is wanted and already there; return all that is wanted, the rest as LOADING."""
        before = self._models.get(name) or ServedModel(name)
        versions: dict[int, LoadedVersion] = {}
        for number, want in wanted.versions.items():
            have = before.versions.get(number)
            if have is None or have.wanted != want or have.state != "AVAILABLE":
                have = self._failed_lately(want) or LoadedVersion(want, "LOADING")
            versions[number] = have
        self._publish(settled(versions, wanted, before))
        return versions

    def _load_missing(self, name: str, wanted: WantedModel, versions: dict[int, LoadedVersion]) -> None:
        """Load what is LOADING among `versions`, first what has traffic, and publish each as it comes."""
        missing = [number for number, version in versions.items() if version.state == "LOADING"]
        for number in sorted(missing, key=lambda number: (-wanted.traffic.get(number, 0), -number)):
            loaded = self._load_version(name, number, wanted.versions[number])
            if self._is_replaced(name, number, wanted.versions[number]):
                _log.warning("%s version %d: replaced while it was loaded; loading it again", name, number)
                continue
            versions[number] = loaded
            self._publish(settled(versions, wanted, self._models[name]))

    def _is_replaced(self, name: str, number: int, wanted: WantedVersion) -> bool:
        """Whether other files lie there now: what was loaded may then be of both."""
        now = self._wanted(name)
        return now is not None and now.versions.get(number, wanted) != wanted

    def _publish(self, served: ServedModel) -> None:
        before = self._models.get(served.name)
        self._models = {**self._models, served.name: served}
        dropped = [] if before is None else [n for n in before.versions if n not in served.versions]
        for number in dropped:
            _log.info("%s version %d: unloaded", served.name, number)
        if dropped:
            del before
            gc.collect()  # TensorFlow's objects refer to each other in circles
            return_memory()

    def _load_version(self, name: str, number: int, wanted: WantedVersion) -> LoadedVersion:
        started_s = time.monotonic()
        try:
            with waiting_for(f"{name} version {number}, which is loaded and tried", _log.warning):
                model = self._load(wanted.directory)
        except Exception as exc:  # a model must not be able to end the server
            _log.error("%s version %d: not loaded: %s", name, number, exc)
            failed = LoadedVersion(wanted, "END", error=str(exc))
            self._failures[wanted] = (time.monotonic(), failed)
            return failed
        _log.info("%s version %d: loaded in %.1f s", name, number, time.monotonic() - started_s)
        self._failures.pop(wanted, None)
        return LoadedVersion(wanted, "AVAILABLE", model=model)

    def _failed_lately(self, wanted: WantedVersion) -> LoadedVersion | None:
        failed_at_s, failed = self._failures.get(wanted, (0.0, None))
        return failed if time.monotonic() - failed_at_s < RETRY_LOAD_S else None

    def _complain(self, name: str, error: ServegraphError) -> None:
        if self._complaints.get(name) != str(error):
            self._complaints[name] = str(error)
            _log.error("%s", error)
