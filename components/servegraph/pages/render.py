"""Render a template of any package on the common frame `frame.html.jinja`."""

from __future__ import annotations

import json
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from servegraph.machines.sizes import format_size
from servegraph.metric_words import metric_name, metric_value
from servegraph.printable import printable_lines


def render(package: str, template: str, **values: Any) -> str:
    """Return the page of `template` in `package` as one self-contained HTML text.

    Every value is escaped; control characters, which no page may hold, stand as JSON escapes them.
    """
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package, ""), PackageLoader("servegraph.pages", "")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["size"] = format_size
    environment.filters["json"] = lambda value: json.dumps(value, ensure_ascii=False)
    environment.filters["shape"] = lambda dims: "unknown" if dims is None else f"[{', '.join(map(str, dims))}]"
    environment.filters |= {"metric_name": metric_name, "metric_value": metric_value}
    environment.filters["figure"] = lambda value: f"{value:.4g}"
    page = environment.get_template(template).render(**values)
    return printable_lines(page.encode("utf-8", "backslashreplace").decode())  # a file's name need not be text
