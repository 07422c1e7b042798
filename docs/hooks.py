"""What the site has beyond its pages: references made from docstrings, options and the catalogue, and checked links.

Links into the repository are for readers of the repository; on the site they become the name of the file, after a look
whether it is there.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click
import error_codes  # beside this file, where mkdocs looks too
import yaml
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
_OUTSIDE = re.compile(r"\[([^\]]+)\]\((\.\./[^)#]+)\)")


def on_files(files: Files, config: Any) -> Files:
    """Add the generated pages."""
    pages = {
        "components.md": components(),
        "cli.md": command_line(),
        "machines.md": machines(),
        "errors.md": error_codes.page(),
    }
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Turn links into the repository into names of files."""

    def name(found: re.Match[str]) -> str:
        if not (ROOT / "docs" / found[2]).exists():
            raise PluginError(f"{page.file.src_uri} links to {found[2]}, which is not there.")
        return f"{found[1]}"

    return _OUTSIDE.sub(name, markdown)


def components() -> str:
    """Return the reference of the components, from their compiled docstrings."""
    import servegraph.components

    package = Path(servegraph.components.__file__).parent
    parts = ["# Components\n\nEach is imported from `servegraph.components`, or loaded from its `component.yaml`.\n"]
    for name in servegraph.components.__all__:
        text = (package / name / "component.yaml").read_text(encoding="utf-8")
        document = yaml.safe_load(text)
        (component,) = (row for row in document["components"].values() if "executorLabel" in row)
        image = document["deploymentSpec"]["executors"][component["executorLabel"]]["container"]["image"]
        summary = text.partition("# Description: ")[2].partition("\n")[0]
        parts += [f"## {name}\n", f"{summary}\n", f"Image: `{image}`\n"]
        for title, part in (("Input", "inputDefinitions"), ("Output", "outputDefinitions")):
            rows = list(_rows(component.get(part, {})))
            if rows:
                parts.append(f"| {title} | Type | Default | |\n|---|---|---|---|\n" + "\n".join(rows) + "\n")
    return "\n".join(parts)


def _rows(definitions: dict[str, Any]) -> Any:
    for name, row in definitions.get("artifacts", {}).items():
        kind = row["artifactType"]["schemaTitle"]
        yield f"| `{name}` | {kind} | {'optional' if row.get('isOptional') else ''} | {_cell(row)} |"
    for name, row in definitions.get("parameters", {}).items():
        default = f"`{row['defaultValue']!r}`" if "defaultValue" in row else ""
        yield f"| `{name}` | {row['parameterType']} | {default} | {_cell(row)} |"


def _cell(row: dict[str, Any]) -> str:
    return " ".join(str(row.get("description", "")).split()).replace("|", "\\|")


def command_line() -> str:
    """Return the reference of the command line, from its own help."""
    from servegraph_pipelines.cli import VERBS, app

    codes = "0 fine, 1 the verb's own no, 2 input it cannot use, 130 interrupted, 141 nobody reads the output"
    parts = [f"# Command line\n\nExit codes: {codes}.\n"]
    for verb in VERBS:
        command = app.get_command(None, verb)
        parts.append(_help(command, f"servegraph {verb}", 2))
    return "\n".join(parts)


def _help(command: Any, path: str, level: int) -> str:
    context = click.Context(command, info_name=path, max_content_width=100, terminal_width=100)
    parts = [f"{'#' * level} {path.removeprefix('servegraph ')}\n", f"```text\n{command.get_help(context)}\n```\n"]
    for name, below in getattr(command, "commands", {}).items():
        parts.append(_help(below, f"{path} {name}", level + 1))
    return "\n".join(parts)


def machines() -> str:
    """Return the catalogue of machines with their ends, from the data that the choice reads."""
    from datetime import date

    from servegraph.machines.catalog import load

    catalogue = load()
    parts = ["# Machines\n\nWhat `choose` decides over; in the catalogue each figure names its source and its day.\n"]
    for platform in catalogue.platforms.values():
        ended = f", ended {platform.ended}" if platform.ended else ""
        parts.append(f"## {platform.title}{ended}\n\n| Machine | vCPUs | Memory | Largest model |\n|---|---|---|---|")
        for row in platform.machine_types:
            largest = platform.families[row.family].max_model_bytes
            parts.append(f"| `{row.name}` | {row.vcpus} | {row.memory_gb} GB | {largest:,} bytes |")
        parts.append("")
    parts.append("## Accelerators\n\n| Accelerator | Memory | On | Support ends |\n|---|---|---|---|")
    for gpu in catalogue.accelerators.values():
        end = gpu.end_of_support
        ends = "" if end is None else "has ended" if end == date.min else f"{end}"
        parts.append(f"| `{gpu.name}` | {gpu.memory_gb} GB | {', '.join(gpu.platforms)} | {ends} |")
    return "\n".join(parts) + "\n"
