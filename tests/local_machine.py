"""A machine of one's own for schedules: its crontab, its timers, and a file that declares one schedule."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from servegraph_pipelines import flows
from servegraph_pipelines.cli import app
from servegraph_pipelines.schedules.timers import machine_zone

FLOW = Path(flows.__file__).with_name("train_and_deploy.yaml")
# A crontab and a systemctl that keep what they are told, for machines that have neither.
CRONTAB = """#!/bin/sh
if [ "$1" != -l ]; then exec cat > "$HOME/crontab"; fi
if [ -e "$HOME/denied" ]; then echo "you are not allowed to use this program" >&2; exit 1; fi
[ -e "$HOME/crontab" ] || { echo "no crontab for me" >&2; exit 1; }
exec cat "$HOME/crontab"
"""
SYSTEMCTL = '#!/bin/sh\necho "$@" >> "$HOME/systemctl.log"\n'
LOGINCTL = "#!/bin/sh\necho Linger=yes\n"


@dataclass
class Machine:
    """This machine, as a user with a home of its own finds it; `file` declares one schedule, nightly."""

    folder: Path
    scheduler: str

    @property
    def file(self) -> Path:
        return self.folder / "s.yaml"

    @property
    def crontab(self) -> Path:
        return self.folder / "home/crontab"

    @property
    def units(self) -> Path:
        return self.folder / "home/.config/systemd/user"

    @property
    def kept(self) -> Path:
        return self.folder / "kept/nightly"

    def declare(self, **changes: Any) -> None:
        row = {"name": "nightly", "cron": "0 3 * * MON", "engine": "local", "pipeline": str(FLOW)}
        row["time_zone"] = machine_zone()  # all that cron takes
        row["place"] = {"scheduler": self.scheduler, "directory": str(self.kept.parent)}
        row["parameters"] = {"seed": 3, "hyperparameters": {"epochs": 2}}
        self.file.write_text(yaml.safe_dump({"schedules": [row | changes]}))

    def run(self, verb: str, *names: str) -> int:
        return app.main(["schedule", verb, str(self.file), *names, "--json"], standalone_mode=False)

    def lines(self) -> str:
        files = [self.crontab, self.units / "servegraph-nightly.timer"]
        return "".join(file.read_text() for file in files if file.exists())


def data(machine: Machine) -> Path:
    """Make a table beside the file."""
    path = machine.folder / "sales.csv"
    path.write_text("length,kind\n1,no\n2,yes\n")
    return path
