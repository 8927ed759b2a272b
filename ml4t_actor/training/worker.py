"""Where a retraining runs: in a child process of the lowest priority, or in a backtest at once."""

import contextlib
import json
import os
import selectors
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import msgspec
import numpy as np

from ml4t_actor.labeling.rows import LabelledRows
from ml4t_actor.ledger import Ledger, TrainingRows, training_rows
from ml4t_actor.ledger.schema import Source
from ml4t_actor.registry import BundleError, ModelBundle, ModelStore
from ml4t_actor.training.gate import GateDecision
from ml4t_actor.training.retraining import Progress, RetrainResult, RetrainSpec, fresh_since_ns, retrain

CHILD_COMMAND = (sys.executable, "-m", "ml4t_actor.training.child")
JOB_FILE = "job.json"
RESULT_FILE = "result.json"
CHAMPION_FOLDER = "champion"
CHALLENGER_FOLDER = "challenger"

_ERROR_CHARACTERS = 4_000
_POLL_SECONDS = 0.2


class JobFile(msgspec.Struct, frozen=True, kw_only=True):
    """What a child process reads: the job, and where its data are.

    Attributes
    ----------
    spec : RetrainSpec
        The job.
    ledger : str
        The SQLite file.
    champion : str
        Version that serves; "" if no model does.
    champion_copy : str
        Version of its copy in the folder `champion` beside this file.
    history_store, history_version : str
        Where the champion's rows are; "" if nowhere.
    """

    spec: RetrainSpec
    ledger: str
    champion: str
    champion_copy: str
    history_store: str
    history_version: str


class ResultFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a child process leaves: the decision, and the version in the folder `challenger` beside this file."""

    decision: GateDecision | None
    version: str
    error: str
    dropped: dict[str, int]


class Trainer(Protocol):
    """What the lifecycle requests a challenger from; `done` is called once, wherever the result arrives."""

    @property
    def busy(self) -> bool:
        """Whether a retraining is under way."""
        ...

    def start(
        self,
        spec: RetrainSpec,
        champion: ModelBundle | None,
        done: Callable[[RetrainResult], None],
    ) -> None:
        """Begin; `RuntimeError` if one is under way already."""
        ...

    def cancel(self) -> None:
        """End what is under way; its result is not delivered."""
        ...


class InlineTrainer:
    """Trains at once, in the calling thread: for a backtest, where nothing waits.

    Parameters
    ----------
    ledger : Ledger
        Where the rows are.
    store : ModelStore
        Where the first champion's rows are; those of later ones are in memory. Nothing is written to it: a
        backtest must not leave models that a later run would load as its own.
    progress : callable, optional
        Called with what is being done and the share done.
    """

    def __init__(self, ledger: Ledger, store: ModelStore, progress: Progress | None = None) -> None:
        self._ledger = ledger
        self._store = store
        self._progress = progress
        self._n = 0

    busy = False

    def start(
        self, spec: RetrainSpec, champion: ModelBundle | None, done: Callable[[RetrainResult], None]
    ) -> None:
        """Train, and call `done` before returning."""
        started = time.perf_counter()
        try:
            history = _history(self._store, champion)
            result = retrain(
                spec, champion, history, _fresh_rows(self._ledger, spec, champion), progress=self._progress
            )
        except Exception as e:  # as a child process would have reported it
            result = RetrainResult(error=f"{type(e).__name__}: {e}")
        if result.bundle is not None:
            self._n += 1
            result = replace(result, bundle=replace(result.bundle, version=f"backtest-{self._n:06d}"))
        done(replace(result, seconds=time.perf_counter() - started))

    def cancel(self) -> None:
        """Nothing can be under way."""


class RetrainWorker:
    """Trains in a child process at `nice` 19, one at a time, watched by a thread.

    The child gets its data by file: the ledger itself, and the folder of the champion's bundle. It dies with its
    parent. Whatever goes wrong there (an exception, a hang, the out-of-memory killer, an answer that is none) becomes
    a `RetrainResult` with the reason, and its traceback where there is one. A promoted challenger is copied into the
    store before it is delivered, so that a restart serves it.

    Parameters
    ----------
    ledger : Ledger
        Flushed before each job.
    ledger_path : str or Path
        Its file.
    store : ModelStore
        Where bundles live.
    timeout_s : float
        A child that runs longer is killed.
    accept : callable, optional
        Called with a promoted challenger before it is stored, from the watching thread; a `ValueError` rejects it.
    progress : callable, optional
        Called with what is being done and the share done, from the watching thread.
    command : sequence of str, optional
        How to start a child; the folder of the job is added.
    """

    def __init__(
        self,
        ledger: Ledger,
        ledger_path: str | Path,
        store: ModelStore,
        *,
        timeout_s: float = 1800.0,
        accept: Callable[[ModelBundle], None] | None = None,
        progress: Progress | None = None,
        command: Sequence[str] = CHILD_COMMAND,
    ) -> None:
        self._ledger = ledger
        self._ledger_path = Path(ledger_path)
        self._store = store
        self._timeout_s = timeout_s
        self._accept = accept or (lambda _bundle: None)
        self._progress = progress or (lambda _what, _share: None)
        self._command = tuple(command)
        self._cancelled = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def busy(self) -> bool:
        """Whether a child, or the thread that watches it, is still at work."""
        return self._thread is not None and self._thread.is_alive()

    def start(
        self, spec: RetrainSpec, champion: ModelBundle | None, done: Callable[[RetrainResult], None]
    ) -> None:
        """Start a child and return at once; `done` is called from the watching thread.

        Raises
        ------
        RuntimeError
            If one is at work already.
        """
        if self.busy:
            raise RuntimeError("a retraining is under way; wait for its result, or cancel it")
        self._cancelled = threading.Event()
        self._thread = threading.Thread(
            target=self._watch,
            args=(spec, champion, done, self._cancelled),
            name="ml4t-retrain",
            daemon=True,
        )
        self._thread.start()

    def cancel(self, timeout_s: float = 5.0) -> None:
        """Kill the child, if there is one, and wait for its end; no result is delivered."""
        self._cancelled.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout_s)

    def _watch(
        self,
        spec: RetrainSpec,
        champion: ModelBundle | None,
        done: Callable[[RetrainResult], None],
        cancelled: threading.Event,
    ) -> None:
        started = time.perf_counter()
        try:
            with tempfile.TemporaryDirectory(prefix="ml4t-retrain-", ignore_cleanup_errors=True) as name:
                folder = Path(name)
                self._write_job(folder, spec, champion)
                failure = self._run(folder, cancelled)
                result = RetrainResult(error=failure) if failure else self._collect(folder)
        except Exception as e:  # the thread must answer whatever happens
            result = RetrainResult(error=f"{type(e).__name__}: {e}")
        if not cancelled.is_set():
            done(replace(result, seconds=time.perf_counter() - started))

    def _write_job(self, folder: Path, spec: RetrainSpec, champion: ModelBundle | None) -> None:
        if not self._ledger.flush(timeout_s=30.0):
            raise RuntimeError(
                f"the ledger {self._ledger_path} could not be written ({self._ledger.last_error}); retraining waits "
                "for the disk"
            )
        copied, rows_of = "", (Path(), "")
        if champion is not None:
            copies = ModelStore(folder / CHAMPION_FOLDER)
            stored = champion.version in self._store.versions()
            history = None if stored else champion.history
            copied = copies.save(replace(champion, estimator=None, history=history)).version
            rows_of = (self._store.root, champion.version) if stored else (copies.root, copied)
        job = JobFile(
            spec=spec,
            ledger=str(self._ledger_path.resolve()),
            champion="" if champion is None else champion.version,
            champion_copy=copied,
            history_store=str(rows_of[0].resolve()),
            history_version=rows_of[1],
        )
        (folder / JOB_FILE).write_bytes(msgspec.json.encode(job))

    def _run(self, folder: Path, cancelled: threading.Event) -> str:
        """Run a child to its end; return why it failed, or an empty string."""
        errors = folder / "stderr.txt"
        # One thread in each numerical library: the event thread's process keeps the other cores.
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "MKL_NUM_THREADS": "1",
        }
        deadline = time.monotonic() + self._timeout_s
        with (
            errors.open("wb") as stderr,
            subprocess.Popen(
                [*self._command, str(folder)],
                stdin=subprocess.PIPE,  # never written to: its end is how the child learns that the parent died
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=environment,
                start_new_session=True,  # an interrupt at the terminal is for the node, which then cancels
            ) as child,
        ):
            try:
                failure = self._listen(child, deadline, cancelled)
            finally:
                child.kill()
        if failure:
            return failure
        if child.returncode != 0:
            end = f"was killed by signal {-child.returncode}" if child.returncode < 0 else "failed"
            trace = errors.read_text(errors="replace")[-_ERROR_CHARACTERS:].strip()
            return f"the training process {end}" + (f":\n{trace}" if trace else "")
        return ""

    def _listen(self, child: "subprocess.Popen[bytes]", deadline: float, cancelled: threading.Event) -> str:
        """Relay the child's progress until it ends; return why it was given up, or an empty string."""
        assert child.stdout is not None
        pending = b""
        with selectors.DefaultSelector() as selector:
            selector.register(child.stdout, selectors.EVENT_READ)
            while True:
                if cancelled.is_set():
                    return "cancelled"
                if time.monotonic() > deadline:
                    return f"the training process took more than {self._timeout_s:g} s and was ended"
                if not selector.select(timeout=_POLL_SECONDS):
                    if child.poll() is not None:  # but a process that it started keeps the pipe open
                        break
                    continue
                chunk = os.read(child.stdout.fileno(), 65_536)
                if not chunk:
                    break
                *lines, pending = (pending[-65_536:] + chunk).split(b"\n")
                for line in lines:
                    self._relay(line)
        while child.poll() is None:
            if cancelled.is_set() or time.monotonic() > deadline:
                return f"the training process did not end within {self._timeout_s:g} s"
            time.sleep(_POLL_SECONDS / 4)
        return ""

    def _relay(self, line: bytes) -> None:
        # A library's own print is no progress.
        with contextlib.suppress(ValueError, TypeError, KeyError, RecursionError):
            what, share = json.loads(line)["progress"]
            self._progress(str(what), float(share))

    def _collect(self, folder: Path) -> RetrainResult:
        try:
            raw = (folder / RESULT_FILE).read_bytes()
            answer = msgspec.json.decode(raw, type=ResultFile)
        except (OSError, ValueError) as e:
            return RetrainResult(error=f"the training process left no readable result: {e}")
        if answer.decision is None or answer.error:
            return RetrainResult(error=answer.error or "no challenger", dropped=answer.dropped)
        challengers = ModelStore(folder / CHALLENGER_FOLDER)
        try:
            bundle = challengers.load(answer.version)
            warm(bundle)
            if answer.decision.promoted:
                self._accept(bundle)
                bundle = self._store.adopt(challengers, answer.version)
        except (BundleError, ValueError, OSError) as e:
            return RetrainResult(error=f"the challenger is refused: {e}", dropped=answer.dropped)
        return RetrainResult(decision=answer.decision, bundle=bundle, dropped=answer.dropped)


def warm(bundle: ModelBundle) -> None:
    """Predict once, so that no signal waits for a compiler; `ValueError` if that gives no probability."""
    confidence = bundle.model.predict(np.zeros(len(bundle.feature_names)), 0.5, 1.0)
    if not 0.0 <= confidence <= 1.0:
        raise ValueError(
            f"the model of {bundle.version!r} gives {confidence} for a row of zeros; train a new one"
        )


def run_job_file(folder: Path, progress: Progress) -> None:
    """Do the job in `folder` and leave its result there."""
    job = msgspec.json.decode((folder / JOB_FILE).read_bytes(), type=JobFile)
    champion = None
    if job.champion_copy:
        copy = ModelStore(folder / CHAMPION_FOLDER).load(job.champion_copy)
        champion = replace(copy, version=job.champion)
    history = ModelStore(job.history_store).load_history(job.history_version) if job.history_version else None
    result = retrain(job.spec, champion, history, _fresh_rows(job.ledger, job.spec, champion), progress)
    version = ""
    if result.bundle is not None:
        progress("saving the challenger", 1.0)
        version = ModelStore(folder / CHALLENGER_FOLDER).save(result.bundle).version
    answer = ResultFile(decision=result.decision, version=version, error=result.error, dropped=result.dropped)
    partial = folder / f"{RESULT_FILE}.partial"
    partial.write_bytes(msgspec.json.encode(answer))
    partial.rename(folder / RESULT_FILE)


def _history(store: ModelStore, champion: ModelBundle | None) -> LabelledRows | None:
    if champion is None or champion.history is not None:
        return None if champion is None else champion.history
    return store.load_history(champion.version) if champion.version in store.versions() else None


def _fresh_rows(source: Source, spec: RetrainSpec, champion: ModelBundle | None) -> TrainingRows:
    return training_rows(
        source,
        spec.actor,
        spec.feature_names,
        since_ns=fresh_since_ns(champion),
        until_ns=spec.now_ns,
        max_rows=spec.retrain.max_rows,
    )


__all__ = ["InlineTrainer", "JobFile", "ResultFile", "RetrainWorker", "Trainer", "run_job_file", "warm"]
