"""Processes that start in a tenth of a second: forked from one that has everything imported and compiled.

A module that is run as ``python -m tests.support.X MODELS`` calls `serve`; a test starts it as a `ForkServer`, and
with it one process after the other.
"""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import msgspec

from tests.support.paths import ROOT
from tests.support.waiting import FAR_S, end_of


class Life(msgspec.Struct, frozen=True, kw_only=True):
    """What one process is to do.

    Attributes
    ----------
    config : str
        The actor's configuration, as JSON.
    log : str
        File that what it says is added to.
    environment : dict
        Variables of its environment.
    """

    config: str
    log: str
    environment: dict[str, str] = {}


def serve[L: Life](models: Path, kind: type[L], prepare: Callable[[L], Callable[[], None]]) -> None:
    """Fork a process for each life on standard input, and answer with its id, or with how it ended.

    Parameters
    ----------
    models : Path
        Folder of models, for the newest of which everything is compiled.
    kind : type
        Of the lives.
    prepare : callable (Life) -> callable () -> None
        Called here; what it returns is called in the process.
    """
    import redis  # noqa: F401  before the fork, as all that takes long
    from nautilus_trader.live.node import TradingNode  # noqa: F401

    # Nautilus's allocator has a thread of its own, which it stops and restarts around a fork.
    warnings.filterwarnings("ignore", category=DeprecationWarning, message=".*use of fork")
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    _compile(models)
    answers.write('"ready"\n')
    for line in sys.stdin:
        request = json.loads(line)
        if "life" in request:
            life = msgspec.convert(request["life"], kind)
            run = prepare(life)
            pid = os.fork()
            if pid == 0:
                _become(life, run)
            answers.write(f"{pid}\n")
        else:
            if request["signal"]:
                os.kill(request["pid"], request["signal"])
            answers.write(f"{os.waitstatus_to_exitcode(os.waitpid(request['pid'], 0)[1])}\n")


def _compile(models: Path) -> None:
    from ml4t_actor.inference import InferenceLoop
    from ml4t_actor.labeling.outcome_tracker import OutcomeTracker
    from ml4t_actor.registry import ModelStore
    from ml4t_actor.settings import LabelSettings

    bundle = ModelStore(models).load_latest()
    assert bundle is not None
    settings = bundle.settings
    loop = InferenceLoop(
        bundle,
        labels=settings.labels,
        vpin=settings.vpin,
        volatility_halflife_bars=settings.volatility_halflife_bars,
    )
    loop.compile()
    OutcomeTracker(LabelSettings(), 1)


def _become(life: Life, run: Callable[[], None]) -> None:
    """Live in a freshly forked process, which ends here whatever happens."""
    code = 1
    try:
        log = os.open(life.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        for handle in (1, 2):
            os.dup2(log, handle)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.environ.update(life.environment)
        run()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


class ForkServer:
    """Starts processes and ends them, from within a test; one at a time.

    Parameters
    ----------
    module : str
        That calls `serve` when it is run.
    models : Path
        Folder of models.

    Attributes
    ----------
    pid : int
        Of the process that lives; 0 if none.
    """

    def __init__(self, module: str, models: Path) -> None:
        self.pid = 0
        self._server = subprocess.Popen(
            [sys.executable, "-m", module, str(models)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            # Threads do not survive a fork.
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )
        if self._answer() != "ready":
            raise RuntimeError(f"{module} did not start; its standard error says why")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(RuntimeError, OSError):
            self.kill()
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.close()
        end_of(self._server)
        self._server.stdout.close()

    def begin(self, life: Life) -> int:
        """Start a life and return its process id."""
        self.pid = self._request({"life": msgspec.to_builtins(life)})
        return self.pid

    def kill(self) -> int:
        """Send SIGKILL, if one lives, and return the exit code, its own if it had ended already."""
        return self._end(signal.SIGKILL)

    def stop(self) -> int:
        """Send SIGTERM, and return the exit code once it has ended."""
        return self._end(signal.SIGTERM)

    def end(self) -> int:
        """Wait for it to end by itself, and return the exit code."""
        return self._end(None)

    def _end(self, by: signal.Signals | None) -> int:
        if not self.pid:
            return 0
        code = int(self._request({"pid": self.pid, "signal": 0 if by is None else int(by)}))
        self.pid = 0
        return code

    def _request(self, request: dict[str, Any]) -> Any:
        assert self._server.stdin is not None
        self._server.stdin.write(f"{json.dumps(request)}\n".encode())
        self._server.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._server.stdout is not None
        if not select.select([self._server.stdout], [], [], FAR_S)[0]:
            if self.pid:  # which the server waits for
                pid, self.pid = self.pid, 0
                os.kill(pid, signal.SIGKILL)
            self._server.kill()
            raise RuntimeError(f"the process, or the server of processes, said nothing for {FAR_S:g} s")
        line = self._server.stdout.readline()
        if not line:
            raise RuntimeError("the server of processes has died; its standard error says why")
        return json.loads(line)
