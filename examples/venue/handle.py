"""The stub as a process of its own, for tests."""

import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Self

from examples.venue.payloads import Addresses, Message

_ROOT = Path(__file__).resolve().parents[2]
START_TIMEOUT_S, STOP_TIMEOUT_S = 120.0, 30.0  # far more than either takes, for a busy machine
_open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open  # past any proxy


class Venue:
    """Runs the stub while the context lasts.

    Parameters
    ----------
    *arguments : str
        Of `python -m examples.venue`, such as ``"--candle-ms", "500"``.

    Attributes
    ----------
    env : dict[str, str]
        Environment variables that a node needs to reach the stub.
    base_url_ws : str
        For the adapter's configurations.
    """

    def __init__(self, *arguments: str) -> None:
        self._arguments = arguments

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory()
        path = Path(self._folder.name) / "ports.json"
        command = [sys.executable, "-m", "examples.venue", "--ports-file", str(path), *self._arguments]
        self._errors = (path.parent / "errors").open("w+")
        self.process = subprocess.Popen(command, cwd=_ROOT, stdout=subprocess.DEVNULL, stderr=self._errors)
        try:
            self._wait_for(path)
            if self.process.poll() is not None:
                raise RuntimeError(f"the stub ended at its start: {self.errors()}")
        except BaseException:
            self.__exit__(None, None, None)
            raise
        addresses: Addresses = json.loads(path.read_text())
        self.env = addresses["env"]
        self.base_url_ws = addresses["base_url_ws"]
        self.control_url = addresses["control"]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.terminate()
        try:
            self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(STOP_TIMEOUT_S)
        self._errors.close()
        self._folder.cleanup()

    def errors(self) -> str:
        """Return what the stub wrote to its standard error."""
        self._errors.flush()
        return Path(self._errors.name).read_text()

    def control(self, what: str, **arguments: object) -> int:
        """Do something to the venue; return the length of its log then."""
        body = json.dumps({"do": what, **arguments}).encode()
        headers = {"Content-Type": "application/json"}
        try:
            with _open(urllib.request.Request(f"{self.control_url}/control", body, headers)) as response:
                length: int = json.load(response)["log"]
                return length
        except urllib.request.HTTPError as e:
            raise ValueError(e.read().decode()) from None

    def log(self, kind: str | None = None, since: int = 0) -> list[Message]:
        """Return the recorded traffic, of one kind or all."""
        with _open(f"{self.control_url}/log?since={since}") as response:
            entries: list[Message] = json.load(response)
        return [entry for entry in entries if kind is None or entry["kind"] == kind]

    def state(self) -> Message:
        """Return what the venue knows: positions, orders, fills, prices, subscriptions, open times of candles."""
        with _open(f"{self.control_url}/state") as response:
            state: Message = json.load(response)
            return state

    def info(self, **query: object) -> object:
        """Return the answer of `/info`."""
        request = urllib.request.Request(
            self.control_url.replace("/_venue", "/info"), json.dumps(query).encode()
        )
        with _open(request) as response:
            return json.load(response)

    def _wait_for(self, path: Path) -> None:
        """Wait until a file is there, as long as the process lives."""
        end = time.monotonic() + START_TIMEOUT_S
        while not path.exists() and self.process.poll() is None:
            if time.monotonic() > end:
                raise TimeoutError(f"the stub's addresses are not there after {START_TIMEOUT_S:g} s")
            time.sleep(0.02)
