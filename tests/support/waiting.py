"""How tests wait: until something holds, as long as anything moves, and never without an end."""

import asyncio
import subprocess
import threading
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from typing import Any

STILL_S = 90.0  # no step for so long is a standstill, on a machine that is busy with other things too
FAR_S = 240.0  # below the limit of a test, whose end says less
LOOK_EVERY_S = 0.5  # whether anything has moved, which may cost more than whether it is over


class Patience:
    """How long a wait may go on: until nothing has moved for `still_s`, and at the very most for `far_s`.

    Parameters
    ----------
    what : str
        What is waited for, as in "waited for ...".
    moving : callable () -> object, optional
        Changes with each step on the way: how many have come, what phase it is. Without one the wait is for a single
        step.
    still_s, far_s : float
        The limits, in seconds; `far_s` counts with `moving` only.

    Examples
    --------
    >>> patience = Patience("an answer", still_s=0.0)
    >>> patience.check()
    Traceback (most recent call last):
        ...
    AssertionError: waited for an answer: nothing has moved for 0 s
    """

    def __init__(
        self,
        what: str,
        moving: Callable[[], object] | None = None,
        *,
        still_s: float = STILL_S,
        far_s: float = FAR_S,
    ) -> None:
        self._what = what
        self._moving = moving
        self._still_s, self._far_s = still_s, far_s
        self._began_s = self._moved_s = self._look_s = time.monotonic()
        self._seen: object = None if moving is None else moving()

    def check(self) -> None:
        """Raise `AssertionError` where there is nothing left to wait for."""
        now_s = time.monotonic()
        if self._moving is not None and now_s >= self._look_s:
            if (seen := self._moving()) != self._seen:
                self._seen, self._moved_s = seen, now_s
            self._look_s = now_s + LOOK_EVERY_S
        where = "" if self._moving is None else f", at {self._seen!r}"
        if now_s - self._moved_s >= self._still_s:
            raise AssertionError(f"waited for {self._what}: nothing has moved for {self._still_s:g} s{where}")
        if now_s - self._began_s >= self._far_s:
            raise AssertionError(f"waited for {self._what}: it has not come within {self._far_s:g} s{where}")


def until[T](
    holds: Callable[[], T],
    what: str = "what is to hold",
    moving: Callable[[], object] | None = None,
    *,
    pause_s: float = 0.005,
    **limits: float,
) -> T:
    """Wait for a condition and return what it gave; the rest as in `Patience`."""
    patience = Patience(what, moving, **limits)
    while not (found := holds()):
        patience.check()
        time.sleep(pause_s)
    return found


async def until_async[T](
    holds: Callable[[], T],
    what: str = "what is to hold",
    moving: Callable[[], object] | None = None,
    *,
    pause_s: float = 0.005,
    **limits: float,
) -> T:
    """Wait as `until` does, while the event loop goes on."""
    patience = Patience(what, moving, **limits)
    while not (found := holds()):
        patience.check()
        await asyncio.sleep(pause_s)
    return found


def join(one: threading.Thread | BaseProcess, far_s: float = FAR_S) -> None:
    """Join a thread or a process, and fail if it does not end."""
    one.join(far_s)
    assert not one.is_alive(), f"{one.name} did not end within {far_s:g} s"


def end_of(process: "subprocess.Popen[Any]", far_s: float = FAR_S) -> int:
    """Wait for a process to end and return its exit code; kill it and fail if it does not end."""
    try:
        return process.wait(far_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(far_s)
        raise AssertionError(f"{process.args!r} did not end within {far_s:g} s") from None
