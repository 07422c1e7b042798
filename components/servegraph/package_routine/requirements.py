"""What a routine needs beyond the server: pins, and their wheels beside the model, so that no server runs pip."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from servegraph.errors import InputError, Refusal

_HASH = re.compile(r"\s--hash[=\s]\S+")


class Pin(NamedTuple):
    """One package in one version; `line` is how the file has it, with its hashes."""

    name: str
    version: str
    line: str

    def __str__(self) -> str:
        """`name==version`."""
        return f"{self.name}=={self.version}"


@dataclass(frozen=True)
class Platform:
    """What wheels are for, as pip has it; None is this interpreter and machine."""

    python: str | None = None  # like 3.11
    tag: str | None = None  # like manylinux_2_28_x86_64

    def arguments(self) -> list[str]:
        """Return pip's options."""
        python = [] if self.python is None else ["--implementation", "cp", "--python-version", self.python]
        return python + ([] if self.tag is None else ["--platform", self.tag])


def read_pins(path: Path) -> list[Pin]:
    """Return the pins of a requirements file, sorted by name; those for other systems are left out.

    Raises:
        InputError: the file cannot be read, or a line is not a pin (code `BAD_REQUIREMENTS`).
    """
    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.utils import canonicalize_name

    try:
        text = path.read_text(encoding="utf-8").replace("\\\n", " ")
    except (OSError, UnicodeDecodeError) as exc:
        raise InputError(
            f"{str(path)!r} cannot be read: {exc}.",
            code="BAD_REQUIREMENTS",
            fix="Give UTF-8 text with one pin a line: name==version.",
        ) from exc
    pins: dict[str, Pin] = {}
    for raw in text.splitlines():
        line = re.sub(r"(^|\s)#.*", "", raw).strip()
        if not line:
            continue
        try:
            found = Requirement(_HASH.sub("", line))
        except InvalidRequirement as exc:
            raise _not_a_pin(path, line) from exc
        only = next(iter(found.specifier), None)
        if only is None or len(found.specifier) > 1 or only.operator != "==" or "*" in only.version or found.url:
            raise _not_a_pin(path, line)
        if found.marker is None or found.marker.evaluate():
            name = str(canonicalize_name(found.name))
            hashes = "".join(_HASH.findall(line))
            pins[name] = Pin(name, only.version, f"{name}=={only.version}{hashes}")
    return [pins[name] for name in sorted(pins)]


def of_the_server() -> frozenset[str]:
    """Return the names of the packages that every server has: ours, and what its extra `serve` brings."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    known: set[str] = set()
    pending = [("servegraph", frozenset({"serve"}))]
    while pending:
        name, extras = pending.pop()
        if name in known:
            continue
        try:
            wanted = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        known.add(name)
        for text in wanted:
            requirement = Requirement(text)
            if requirement.marker is None or any(requirement.marker.evaluate({"extra": e}) for e in extras or {""}):
                pending.append((str(canonicalize_name(requirement.name)), frozenset(requirement.extras)))
    return frozenset(known)


def to_fetch(pins: Iterable[Pin]) -> list[Pin]:
    """Return the pins of what no server has.

    Raises:
        InputError: there are some, and no pip here to fetch them (code `PACKAGE_MISSING`): uv makes environments so.
    """
    provided = of_the_server()
    found = [pin for pin in pins if pin.name not in provided]
    if found and importlib.util.find_spec("pip") is None:
        raise InputError(
            f"pip, which fetches {found[0]} and what else the routine needs, is not installed here.",
            code="PACKAGE_MISSING",
            fix="python -m ensurepip, or uv pip install pip",
        )
    return found


def fetch_wheels(pins: Iterable[Pin], platform: Platform, directory: Path) -> list[str]:
    """Download the wheel of each pin into `directory` with pip, which checks the hashes; return their names.

    Raises:
        Refusal: one cannot be had (code `CANNOT_FETCH`).
    """
    lines = [pin.line for pin in pins]
    if not lines:
        return []
    directory.mkdir()
    wanted = directory / "requirements.txt"
    wanted.write_text("\n".join(lines) + "\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--quiet", "--no-deps"]
    command += ["--only-binary", ":all:", *platform.arguments(), "-r", str(wanted), "-d", str(directory)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wanted.unlink()
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip()]
        raise Refusal(
            f"The wheels of the requirements cannot be had: {said[-1] if said else 'pip does not say why'}",
            code="CANNOT_FETCH",
            fix="See that pip reaches a package index, and that each pin has a wheel.",
        )
    return sorted(path.name for path in directory.glob("*.whl"))


def _not_a_pin(path: Path, line: str) -> InputError:
    return InputError(
        f"{path.name}: {line!r} does not pin one version of a package.",
        code="BAD_REQUIREMENTS",
        fix="Write name==version, for all packages that are needed; `pip freeze` or `uv pip compile` gives them.",
    )
