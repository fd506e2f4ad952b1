"""What the checks found, and how it is printed: a table of checks, then each problem with its advice."""

from dataclasses import dataclass
from typing import Literal

Level = Literal["note", "warning", "ERROR"]
LEVELS: tuple[Level, ...] = ("note", "warning", "ERROR")

SHOWN = 5  # examples of a finding that are printed
FEW = 0.01  # up to this share, bad samples are a warning: they can be left out


@dataclass(frozen=True)
class Finding:
    """One problem, or one thing worth knowing.

    Attributes:
        level: a note needs no action, a warning costs samples, an ERROR makes the dataset unfit for use.
        where: the file, folder or part.
        what: the problem, in the same words wherever it occurs.
        detail: numbers and other particulars of this place.
        advice: what to do; may be empty for a note.
        examples: every file or sample concerned; the first few are printed.
    """

    level: Level
    where: str
    what: str
    detail: str = ""
    advice: str = ""
    examples: tuple[str, ...] = ()


@dataclass(frozen=True)
class Check:
    """One row of the table.

    Attributes:
        name: the check.
        checked: how many of what were checked.
        found: the result in a few words or numbers.
        findings: the problems found.
    """

    name: str
    checked: str
    found: str
    findings: tuple[Finding, ...] = ()

    @property
    def verdict(self) -> str:
        """The worst level of the findings, "ok" if there are none."""
        levels = [LEVELS.index(finding.level) for finding in self.findings]
        return LEVELS[max(levels)] if levels else "ok"


def judge_share(bad: int, of: int) -> Level:
    """Return the level for `bad` of `of` samples: a warning for a few outliers, an ERROR for more."""
    return "warning" if bad <= FEW * of else "ERROR"


def count(number: int, noun: str) -> str:
    """Return a number with its noun: "1 file", "1,234 files"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def format_checks(checks: list[Check]) -> str:
    """Return the table and, below it, every finding, the worst first."""
    rows = [("check", "checked", "found", "verdict")]
    rows += [(check.name, check.checked, check.found, check.verdict) for check in checks]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    groups: dict[tuple[Level, str, str], list[Finding]] = {}
    for check in checks:
        for finding in check.findings:
            groups.setdefault((finding.level, finding.what, finding.advice), []).append(finding)
    for (level, what, advice), findings in sorted(groups.items(), key=lambda g: -LEVELS.index(g[0][0])):
        lines += ["", *_format_group(level, what, findings)]
        if advice:
            lines.append(f"  -> {advice}")
    return "\n".join(line.rstrip() for line in lines)


def _format_group(level: Level, what: str, findings: list[Finding]) -> list[str]:
    """Return the lines on one problem, found in one place or in several, with examples of each."""
    if len(findings) == 1:
        (only,) = findings
        return [f"{level}: {only.where}: {what}{_bracket(only.detail)}", *_list(only.examples, SHOWN)]
    lines = [f"{level}: {what}, in {len(findings)} places"]
    each = SHOWN if sum(len(finding.examples) for finding in findings) <= 2 * SHOWN else 1
    for finding in findings[:SHOWN]:
        lines.append(f"    {finding.where}{_bracket(finding.detail)}")
        lines += [f"    {example}" for example in _list(finding.examples, each)]
    if len(findings) > SHOWN:
        lines.append(f"    and {len(findings) - SHOWN:,} more places")
    return lines


def _bracket(detail: str) -> str:
    return f" ({detail})" if detail else ""


def _list(examples: tuple[str, ...], shown: int) -> list[str]:
    lines = [f"    {example}" for example in examples[:shown]]
    if len(examples) > shown:
        lines.append(f"    and {len(examples) - shown:,} more")
    return lines
