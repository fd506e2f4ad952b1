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
        what: one sentence that says what is the matter, and where.
        advice: what to do; may be empty for a note.
        examples: every file or sample concerned, of which the first few are printed.
    """

    level: Level
    what: str
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


def format_checks(title: str, checks: list[Check]) -> str:
    """Return the table and, below it, every finding, the worst first."""
    rows = [("check", "looked at", "found", "verdict")]
    rows += [(check.name, check.looked_at, check.found, check.verdict) for check in checks]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = [title, ""]
    for place, row in enumerate(rows):
        lines.append("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        if place == 0:
            lines.append("  ".join("-" * width for width in widths))
    findings = [finding for check in checks for finding in check.findings]
    for finding in sorted(findings, key=lambda f: -LEVELS.index(f.level)):
        lines += ["", f"{finding.level}: {finding.what}"]
        lines += [f"    {example}" for example in finding.examples[:SHOWN]]
        if len(finding.examples) > SHOWN:
            lines.append(f"    and {len(finding.examples) - SHOWN:,} more")
        if finding.advice:
            lines.append(f"  -> {finding.advice}")
    return "\n".join(lines)
