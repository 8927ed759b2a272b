"""The handle of a real `TradingNode` on the stub, as a process of its own; see `tests.support.remote`."""

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from signal import SIGTERM
from types import TracebackType
from typing import Self, TextIO, cast

from examples.venue import Venue
from examples.venue.payloads import Message
from tests.support.paths import ROOT
from tests.support.waiting import end_of, join, until


class Trader:
    """Runs a node while the context lasts.

    Parameters
    ----------
    venue : Venue
        The stub that it trades on.
    **settings : object
        `strategy`: fields of `EnrichedSignalStrategyConfig`; `engine`: of `LiveExecEngineConfig`; `data_engine`: of
        `LiveDataEngineConfig`; `execution`: of the adapter's configuration.

    Attributes
    ----------
    reports : list[dict]
        What the process has reported so far.
    """

    def __init__(self, venue: Venue, **settings: object) -> None:
        self.venue = venue
        self._folder = (
            tempfile.TemporaryDirectory()
        )  # of a journal that no other node knows, unless one is given
        strategy = {
            "journal_path": f"{self._folder.name}/orders.sqlite",
            **cast(Message, settings["strategy"]),
        }
        self._settings = settings | {"strategy": strategy}
        self.reports: list[Message] = []
        self._requests = 0

    def __enter__(self) -> Self:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("HYPERLIQUID_")}
        self._log = tempfile.NamedTemporaryFile("w+")
        ours, theirs = os.pipe()
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tests.support.remote",
                str(theirs),
                self.venue.base_url_ws,
                json.dumps(self._settings),
            ],
            cwd=ROOT,
            env=environment | self.venue.env,
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=self._log,
            pass_fds=(theirs,),
            text=True,
        )
        os.close(theirs)
        self._reader = threading.Thread(target=self._read, args=(os.fdopen(ours),), daemon=True)
        self._reader.start()
        try:
            self.until(lambda: self.events("started"), "the node's start")
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        end_of(self.process)
        join(self._reader)
        if error is not None:
            print(self.log()[-20_000:])
        self._log.close()
        self._folder.cleanup()

    def _read(self, pipe: TextIO) -> None:
        with pipe:
            for line in pipe:
                self.reports.append(json.loads(line))

    def command(self, **command: object) -> None:
        """Send a command."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{json.dumps(command)}\n")
        self.process.stdin.flush()

    def publish(self, side: int, **fields: object) -> None:
        """Publish an enriched signal inside the node."""
        self.command(do="signal", side=side, fields=fields)

    def state(self) -> Message:
        """Return counts, positions and orders, as the node has them."""
        self._requests += 1
        number = self._requests
        self.command(do="state", number=number)

        def answers() -> list[Message]:
            return [entry for entry in self.events("state") if entry["number"] == number]

        return self.until(answers, "the node's state")[0]

    def events(self, kind: str) -> list[Message]:
        """Return the reports of a kind, such as 'OrderFilled' or 'bar'."""
        return [entry for entry in list(self.reports) if entry["kind"] == kind]

    def stop(self, signum: int = SIGTERM) -> int:
        """Stop the process and return its exit code."""
        self.process.send_signal(signum)
        code = end_of(self.process)
        join(self._reader)
        return code

    def log(self) -> str:
        """Return the node's log."""
        return Path(self._log.name).read_text()

    def until[T](self, condition: Callable[[], T], what: str) -> T:
        """Wait as long as anything is reported, but not longer than the process lives."""

        def value_while_alive() -> T:
            result = condition()
            if not result and self.process.poll() is not None:
                raise RuntimeError(f"the node ended with {self.process.returncode}: {self.log()[-3_000:]}")
            return result

        return until(value_while_alive, what, lambda: len(self.reports), pause_s=0.02)
