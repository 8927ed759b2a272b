"""What /proc tells of processes (Linux)."""

import contextlib
import os
from pathlib import Path


def children_of(pid: int) -> list[int]:
    """Return the processes that a process has started, by any of its threads."""
    found: list[str] = []
    with contextlib.suppress(FileNotFoundError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                found += Path(f"/proc/{pid}/task/{thread}/children").read_text().split()
    return [int(child) for child in found]


def children_cpu_ticks() -> int:
    """Return the time on a processor that the children of this process have had, which grows while one computes."""
    ticks = 0
    for child in children_of(os.getpid()):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks


def is_alive(pid: int) -> bool:
    """Return whether a process runs: one that has ended and waits to be collected does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in ("Z", "X")
