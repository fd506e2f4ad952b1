"""What the doctor found: rows of one table, then each problem with its files and what to do about it."""

from dataclasses import dataclass
from typing import Literal

Level = Literal["note", "warning", "ERROR"]
LEVELS: tuple[Level, ...] = ("note", "warning", "ERROR")

SHOWN = 5  # examples of a finding that are printed
FEW = 0.01  # a damaged hundredth is told as a warning: it can be left out. More than that is no accident


@dataclass(frozen=True)
class Finding:
    """One problem, or one thing worth knowing.

    Attributes:
        level: a note needs no action, a warning costs samples, an ERROR makes the set unfit for use.
        where: the file, folder or part concerned.
        what: what is the matter, in words that are the same wherever it occurs.
        detail: what is particular here, mostly numbers.
        advice: what to do; may be empty for a note.
        examples: every file or sample concerned, of which the first few are printed.
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
        name: what was checked.
        looked_at: how many of what.
        found: the result in a few words or numbers.
        findings: what it gave reason to say.
    """

    name: str
    looked_at: str
    found: str
    findings: tuple[Finding, ...] = ()

    @property
    def verdict(self) -> str:
        """Return the worst level of the findings, or ok."""
        levels = [LEVELS.index(finding.level) for finding in self.findings]
        return LEVELS[max(levels)] if levels else "ok"


def by_share(bad: int, of: int) -> Level:
    """Return the level for `bad` of `of` samples: a few outliers are a warning, more are an ERROR."""
    return "warning" if bad <= FEW * of else "ERROR"


def counted(number: int, thing: str) -> str:
    """Return "1 file", "1,234 files"."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def format_checks(checks: list[Check]) -> str:
    """Return the table and, below it, every finding, the worst first."""
    rows = [("check", "looked at", "found", "verdict")]
    rows += [(check.name, check.looked_at, check.found, check.verdict) for check in checks]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    groups: dict[tuple, list[Finding]] = {}
    for check in checks:
        for finding in check.findings:
            groups.setdefault((finding.level, finding.what, finding.advice), []).append(finding)
    for (level, what, advice), findings in sorted(groups.items(), key=lambda g: -LEVELS.index(g[0][0])):
        lines += ["", *_format_group(level, what, findings)]
        if advice:
            lines.append(f"  -> {advice}")
    return "\n".join(line.rstrip() for line in lines)


def _format_group(level: Level, what: str, findings: list[Finding]) -> list[str]:
    """Write what was found in one place, or in several, with examples of each."""
    if len(findings) == 1:
        (only,) = findings
        return [f"{level}: {only.where}: {what}{_aside(only.detail)}", *_first(only.examples, SHOWN)]
    lines = [f"{level}: {what}, in {len(findings)} places"]
    all_examples = sum(len(finding.examples) for finding in findings)
    each = SHOWN if all_examples <= 2 * SHOWN else 1
    for finding in findings[:SHOWN]:
        lines.append(f"    {finding.where}{_aside(finding.detail)}")
        lines += [f"    {example}" for example in _first(finding.examples, each)]
    if len(findings) > SHOWN:
        lines.append(f"    and {len(findings) - SHOWN:,} more places")
    return lines


def _aside(detail: str) -> str:
    return f" ({detail})" if detail else ""


def _first(examples: tuple[str, ...], shown: int) -> list[str]:
    lines = [f"    {example}" for example in examples[:shown]]
    if len(examples) > shown:
        lines.append(f"    and {len(examples) - shown:,} more")
    return lines
