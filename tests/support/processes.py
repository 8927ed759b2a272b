"""Processes that tests start and watch, the latter by /proc (Linux)."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PROCESS_FAR_S = 540.0  # below the limit of a test


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


def run_to_end(
    command: Sequence[str], *, far_s: float = PROCESS_FAR_S, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run a process and return what it printed; kill it with all that it started, and fail, if it does not end."""
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **options,
    ) as process:
        try:
            said, errors = process.communicate(timeout=far_s)
        except BaseException as e:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            if isinstance(e, subprocess.TimeoutExpired):
                raise AssertionError(f"{' '.join(command)} did not end within {far_s:g} s") from None
            raise
    return subprocess.CompletedProcess(command, process.returncode, said, errors)
