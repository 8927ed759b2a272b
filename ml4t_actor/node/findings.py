"""What a check found, and how it is printed."""

import sys
from collections.abc import Iterable
from typing import Literal, NamedTuple, TextIO

PASS: Literal["PASS"] = "PASS"
WARN: Literal["WARN"] = "WARN"
FAIL: Literal["FAIL"] = "FAIL"
Level = Literal["PASS", "WARN", "FAIL"]


class Finding(NamedTuple):
    """What one check found.

    Attributes
    ----------
    level : {'PASS', 'WARN', 'FAIL'}
        WARN is something to know; with a FAIL the node should not run.
    subject : str
        What was checked.
    message : str
        In words and numbers; never a secret.
    remedy : str
        What to do; "" where nothing is to be done.
    """

    level: Level
    subject: str
    message: str
    remedy: str = ""


def print_table(findings: Iterable[Finding], file: TextIO | None = None) -> None:
    """Print a line per finding, and how many there are of each level."""
    file = file or sys.stdout
    findings = list(findings)
    width = max(len(finding.subject) for finding in findings)
    for finding in findings:
        print(f"{finding.level}  {finding.subject:<{width}}  {finding.message}", file=file)
        if finding.remedy:
            print(f"{'':<{len(finding.level) + width + 4}}-> {finding.remedy}", file=file)
    counts = {level: sum(finding.level == level for finding in findings) for level in (PASS, WARN, FAIL)}
    print(", ".join(f"{n} {level}" for level, n in counts.items()), file=file, flush=True)
