"""Findings: rules that apply to the model at hand, the worst first and not a thousand of one kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from servegraph.inspect_graph.rules import RULES, SEVERITIES, Severity

# A model with a thousand stray files needs no thousand lines.
MAX_OF_A_CODE = 20


class Finding(NamedTuple):
    """A rule that applies to the model at hand; `message` says to what."""

    code: str
    severity: Severity
    message: str
    fix: str
    requirement: str


def finding(code: str, message: str, fix: str = "") -> Finding:
    """Apply a rule: `message` says to what, `fix` what to do where that is known better than in the table."""
    rule = RULES[code]
    return Finding(code, rule.severity, message, fix or rule.fix, rule.requirement)


def condensed(findings: Iterable[Finding]) -> list[Finding]:
    """Return findings with the worst first, and at most `MAX_OF_A_CODE` of each code."""
    rank = {severity: number for number, severity in enumerate(SEVERITIES)}
    kept: list[Finding] = []
    seen: Counter[str] = Counter()
    last: dict[str, int] = {}
    for item in sorted(findings, key=lambda item: rank[item.severity]):
        seen[item.code] += 1
        if seen[item.code] <= MAX_OF_A_CODE:
            last[item.code] = len(kept)
            kept.append(item)
    for code, position in last.items():
        more = seen[code] - MAX_OF_A_CODE
        if more > 0:
            item = kept[position]
            kept[position] = item._replace(message=f"{item.message} And {more:,} more.")
    return kept


def counts(findings: Iterable[Finding]) -> dict[str, int]:
    """Return how many findings there are of each severity."""
    severities = [item.severity for item in findings]
    return {severity: severities.count(severity) for severity in SEVERITIES}
