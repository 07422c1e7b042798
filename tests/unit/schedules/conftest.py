"""The machine as a user with a home of its own finds it."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.local_machine import CRONTAB, LOGINCTL, SYSTEMCTL, Machine


@pytest.fixture(name="make_machine")
def fixture_make_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Machine]:
    def make(scheduler: str) -> Machine:
        home, programs = tmp_path / "home", tmp_path / "bin"
        home.mkdir()
        programs.mkdir()
        for name, content in (("crontab", CRONTAB), ("systemctl", SYSTEMCTL), ("loginctl", LOGINCTL)):
            (programs / name).write_text(content)
            (programs / name).chmod(stat.S_IRWXU)
        for name, value in (("HOME", str(home)), ("PATH", f"{programs}:{os.environ['PATH']}")):
            monkeypatch.setenv(name, value)
        for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.chdir(home)  # where a timer starts runs
        return Machine(tmp_path, scheduler)

    return make


@pytest.fixture(params=["cron", "systemd"])
def machine(request: pytest.FixtureRequest, make_machine: Callable[[str], Machine]) -> Machine:
    return make_machine(request.param)


@pytest.fixture
def cron(make_machine: Callable[[str], Machine]) -> Machine:
    return make_machine("cron")
