"""The training process: what it hands over, and that nothing it does wrong reaches the model that serves."""

import contextlib
import dataclasses
import os
import re
import signal
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from ml4t_actor.inference import InferenceLoop
from ml4t_actor.ledger import Ledger
from ml4t_actor.registry import ModelBundle, ModelStore
from ml4t_actor.settings import LabelSettings, LedgerSettings
from ml4t_actor.training.gate import GateDecision
from ml4t_actor.training.retraining import RetrainResult, RetrainSpec
from ml4t_actor.training.worker import CHILD_COMMAND, InlineTrainer, RetrainWorker, warm
from tests.support.paths import ROOT
from tests.support.retrainings import (
    ACTOR,
    HISTORY,
    NOW,
    REGIME,
    SERVED_ROWS,
    SETTINGS,
    column_bytes,
    end_of,
    everything_of,
    planted,
    record,
    spec_of,
    trained,
)
from tests.support.waiting import FAR_S, until

SPEC = spec_of(NOW)
PROMOTED = GateDecision(
    promoted=True,
    reason="better beyond chance",
    n=500,
    n_blocks=50.0,
    champion_log_loss=0.7,
    challenger_log_loss=0.6,
    baseline_log_loss=0.69,
    improvement=0.7 - 0.6,
    improvement_low=0.05,
    champion_brier=0.25,
    challenger_brier=0.2,
    champion_calibration_gap=0.02,
    challenger_calibration_gap=0.01,
    champion_failed=False,
)
REJECTED = msgspec.structs.replace(PROMOTED, promoted=False, reason="no improvement", improvement_low=-0.1)


def alive(pid: int) -> bool:
    """Return whether a process runs; one that nobody has waited for yet does not."""
    with contextlib.suppress(ProcessLookupError, FileNotFoundError):
        os.kill(pid, 0)
        stat = Path(f"/proc/{pid}/stat")
        return not (stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z")
    return False


@pytest.fixture(scope="module")
def champion() -> ModelBundle:
    return trained(HISTORY)


@pytest.fixture(scope="module")
def challengers(champion: ModelBundle, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What a child may have made: a folder of one version each."""
    labels = LabelSettings(horizon_bars=7)
    made = {
        "good": champion,
        "of other labels": dataclasses.replace(
            champion, settings=msgspec.structs.replace(SETTINGS, labels=labels)
        ),
        "of unknown features": dataclasses.replace(champion, feature_names=("a", "b", "c", "d")),
    }
    folders = {}
    for name, bundle in made.items():
        folders[name] = tmp_path_factory.mktemp("challenger")
        ModelStore(folders[name]).save(bundle)
    return folders


class Bench:
    """A worker with a ledger and a store of its own, and what came out of it."""

    def __init__(self, folder: Path, challengers: dict[str, Path]) -> None:
        self.folder = folder
        self.challengers = challengers
        self.jobs = folder / "jobs"
        self.jobs.mkdir()
        self.pids = folder / "pids"
        self.ledger_path = folder / "ledger.sqlite"
        self.ledger = Ledger(self.ledger_path, ACTOR, LedgerSettings(flush_ms=5))
        self.store = ModelStore(folder / "models")
        self.progress: list[tuple[str, float]] = []
        self.results: list[RetrainResult] = []
        self.worker: RetrainWorker | None = None

    def script(self, body: str) -> tuple[str, ...]:
        """Return the command of a child that does `body`, with the folder of its job in `folder`."""
        prelude = f"""
            import json, os, pathlib, shutil, signal, subprocess, sys, time
            folder = pathlib.Path(sys.argv[1])
            with open({str(self.pids)!r}, "a") as file:
                print(os.getpid(), file=file)
            decision = json.loads({msgspec.json.encode(PROMOTED).decode()!r})

            def leave(decision, made="good", version=None, error=""):
                shutil.copytree({ {k: str(v) for k, v in self.challengers.items()}!r}[made], folder / "challenger")
                version = version or os.listdir(folder / "challenger")[0]
                result = dict(decision=decision, version=version, error=error, dropped=dict(status=3))
                (folder / "result.json").write_text(json.dumps(result))
                return folder / "challenger" / version
        """
        path = self.folder / "child.py"
        path.write_text(textwrap.dedent(prelude) + textwrap.dedent(body))
        return sys.executable, str(path)

    def start(
        self,
        command: tuple[str, ...],
        champion: ModelBundle | None = None,
        spec: RetrainSpec = SPEC,
        **options: Any,
    ) -> RetrainWorker:
        options = {"timeout_s": FAR_S, "progress": lambda *told: self.progress.append(told)} | options
        ledger = options.pop("ledger", self.ledger)
        self.worker = RetrainWorker(ledger, self.ledger_path, self.store, command=command, **options)
        self.worker.start(spec, champion, self.results.append)
        return self.worker

    def result(self) -> RetrainResult:
        """Wait for the end; return the one result, having checked that nothing is left."""
        assert self.worker is not None
        until(lambda: not self.worker.busy)
        assert len(self.results) == 1
        self.assert_nothing_left()
        return self.results.pop()

    def run(self, *args: Any, **options: Any) -> RetrainResult:
        self.start(*args, **options)
        return self.result()

    def started(self) -> list[int]:
        return [int(pid) for pid in self.pids.read_text().split()] if self.pids.exists() else []

    def assert_nothing_left(self) -> None:
        assert list(self.jobs.iterdir()) == []
        assert [pid for pid in self.started() if alive(pid)] == []


@pytest.fixture
def bench(tmp_path: Path, challengers: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    bench = Bench(tmp_path, challengers)
    monkeypatch.setattr(tempfile, "tempdir", str(bench.jobs))
    yield bench
    if bench.worker is not None:
        bench.worker.cancel()
    bench.ledger.close()


SLEEP = "time.sleep(600)"


class TestWellBehaved:
    def test_a_promoted_challenger_is_the_newest_in_the_store_before_it_is_delivered(self, bench, champion):
        bench.store.save(dataclasses.replace(champion, exit_times=[0.4]))
        accepted = []
        result = bench.run(bench.script("leave(decision)"), accept=accepted.append)
        assert (result.error, result.decision) == ("", PROMOTED)
        assert result.dropped == {"status": 3}
        assert [bundle.feature_names for bundle in accepted] == [champion.feature_names]
        newest = bench.store.load_latest()
        assert result.bundle.version == newest.version == bench.store.versions()[-1]
        assert newest.version.startswith("v000002-")
        assert everything_of(newest) == everything_of(result.bundle) == everything_of(champion)
        assert column_bytes(bench.store.load_history(newest.version)) == column_bytes(HISTORY)

    def test_a_rejected_one_is_not_in_the_store(self, bench, champion):
        body = f"leave(json.loads({msgspec.json.encode(REJECTED).decode()!r}))"
        result = bench.run(bench.script(body), accept=lambda _bundle: pytest.fail("nobody asks for it"))
        assert (result.error, result.decision) == ("", REJECTED)
        assert everything_of(result.bundle) == everything_of(champion)
        assert bench.store.versions() == []

    def test_why_there_is_no_challenger_comes_as_the_child_said_it(self, bench):
        result = bench.run(bench.script('leave(None, error="too few signals")'))
        assert (result.error, result.decision, result.bundle) == ("too few signals", None, None)
        assert result.dropped == {"status": 3}

    def test_progress_is_picked_out_of_whatever_else_is_printed(self, bench):
        result = bench.run(
            bench.script("""
            print("a library says hello")
            for line in ('{"progress": ["fitting", 0.25]}', '{"progress": 7}', "7", "[]", "null", "\\udcff"):
                sys.stdout.buffer.write(line.encode(errors="surrogateescape") + b"\\n")
            print('{"progress": ["fitting", "much"]}')
            print("[" * 60_000)
            print('{"progress": ["sav', end="", flush=True)
            time.sleep(0.3)
            print('ing", 1]}')
            leave(decision)
            """)
        )
        assert result.decision == PROMOTED
        assert bench.progress == [("fitting", 0.25), ("saving", 1.0)]

    def test_megabytes_of_noise_block_nothing(self, bench):
        result = bench.run(
            bench.script("""
            for stream in (sys.stdout, sys.stderr):
                stream.buffer.write(os.urandom(3_000_000))
                stream.buffer.write(b"no end of line" * 200_000)
                stream.buffer.flush()
            print('\\n{"progress": ["after the noise", 0.5]}', flush=True)
            leave(decision)
            """)
        )
        assert result.decision == PROMOTED
        assert bench.progress == [("after the noise", 0.5)]

    def test_a_result_does_not_wait_for_what_the_child_started(self, bench):
        body = f"""
        other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        pathlib.Path({str(bench.folder / "other")!r}).write_text(str(other.pid))
        leave(decision)
        """
        try:
            assert bench.run(bench.script(body)).decision == PROMOTED
        finally:
            os.kill(int((bench.folder / "other").read_text()), signal.SIGKILL)


def edited(**changes: Any) -> str:
    return f"nan, inf = float('nan'), float('inf'); leave(decision | {changes!r})"


def altered(edit: str) -> str:
    return f"path = leave(decision) / 'serving.npz'; raw = path.read_bytes(); {edit}"


MISBEHAVIOUR = {
    "raises": (
        "raise ZeroDivisionError('the model blew up')",
        r"process failed:\n(?s:.*)Traceback(?s:.*)ZeroDivisionError: the model blew up$",
    ),
    "fails without a word": ("sys.exit(3)", "process failed$"),
    "fails after a result": ("leave(decision); sys.exit(3)", "process failed$"),
    "leaves nothing": ("pass", "left no readable result: .*No such file"),
    "leaves half a result": ("(folder / 'result.json.partial').write_text('{')", "left no readable result"),
    "leaves no JSON": (r"(folder / 'result.json').write_bytes(b'\x00\xff{')", "left no readable result"),
    "leaves other JSON": ("(folder / 'result.json').write_text('[1, 2]')", "left no readable result"),
    "leaves a folder": ("(folder / 'result.json').mkdir()", "left no readable result"),
    "says NaN": (edited(improvement_low=float("nan")), "left no readable result"),
    "says infinity": (edited(champion_log_loss=float("inf")), "left no readable result"),
    "contradicts itself": (edited(improvement=0.2), "left no readable result: .*difference of both log"),
    "promotes what is worse": (edited(improvement_low=-0.2), "left no readable result: .*do not bear"),
    "lacks a figure": ("del decision['n']; leave(decision)", "left no readable result: .*`n`"),
    "knows more figures": (edited(profit=1.0), "left no readable result: .*`profit`"),
    "names no version": ("leave(decision, version='none')", r"challenger is refused: .*\(foreign\)"),
    "names a path": ("leave(decision, version='../../models')", r"challenger is refused: .*\(foreign\)"),
    "names what is not there": (
        "leave(decision, version='v000007-0123456789ab')",
        r"challenger is refused: .*\(missing\)",
    ),
    "alters a byte": (
        altered("path.write_bytes(raw[:-30] + bytes([raw[-30] ^ 1]) + raw[-29:])"),
        r"challenger is refused: .*\(altered\): serving\.npz",
    ),
    "truncates a file": (
        altered("path.write_bytes(raw[:100])"),
        r"challenger is refused: .*\(truncated\): serving\.npz",
    ),
    "removes a file": (altered("path.unlink()"), r"challenger is refused: .*\(truncated\)"),
    "trains for other labels": (
        "leave(decision, 'of other labels')",
        "challenger is refused: .*`labels`.*horizon_bars=7",
    ),
    "trains on other features": (
        "leave(decision, 'of unknown features')",
        r"challenger is refused: .*\['a', 'b', 'c', 'd'\] that are not registered",
    ),
    "is killed": ("leave(decision); os.kill(os.getpid(), signal.SIGKILL)", "killed by signal 9"),
    "crashes": ("os.abort()", "killed by signal 6"),
}


@pytest.mark.parametrize(("body", "error"), MISBEHAVIOUR.values(), ids=MISBEHAVIOUR.keys())
def test_a_child_that_misbehaves_changes_nothing_and_is_reported(body, error, bench, champion):
    served = bench.store.save(champion)
    loop = InferenceLoop(served, feature_names=served.feature_names, labels=SETTINGS.labels)
    result = bench.run(bench.script(body), served, accept=loop.check)
    assert (result.decision, result.bundle) == (None, None)
    assert result.seconds > 0.0
    assert re.search(error, result.error), result.error
    assert bench.store.versions() == [served.version]
    assert len(bench.started()) == 1


HANGING = {
    "sleeps": SLEEP,
    "works for ever": "while True: pass",
    "does not listen": f"signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEP}",
    "prints for ever": "while True: print('noise' * 1_000)",
    "has left a result": f"leave(decision); {SLEEP}",
    "closes its output": f"os.close(1); {SLEEP}",
    "waits for a process of its own": "subprocess.run([sys.executable, '-c', 'import time; time.sleep(5)'])",
}


@pytest.mark.parametrize("body", HANGING.values(), ids=HANGING.keys())
def test_a_child_that_does_not_end_is_ended(body, bench, champion):
    result = bench.run(bench.script(body), champion, timeout_s=0.3)
    assert re.search(r"(took more than|did not end within) 0\.3 s", result.error), result.error
    assert (result.decision, result.bundle) == (None, None)
    assert bench.store.versions() == []


class TestOtherTroubles:
    def test_a_long_trace_is_cut_to_its_end(self, bench):
        result = bench.run(bench.script("sys.exit('x' * 100_000 + ' the very end')"))
        assert result.error.endswith("the very end")
        assert len(result.error) < 5_000

    def test_a_command_that_does_not_exist(self, bench):
        assert "no-such-program" in bench.run(("no-such-program",)).error

    def test_a_store_that_cannot_be_written(self, bench):
        bench.store.root.write_text("a file where the folder should be")
        result = bench.run(bench.script("leave(decision)"))
        assert "challenger is refused" in result.error
        assert result.bundle is None

    def test_no_room_for_the_job(self, bench, monkeypatch):
        monkeypatch.setattr(tempfile, "tempdir", str(bench.folder / "gone"))
        result = bench.run(bench.script("leave(decision)"))
        assert str(bench.folder / "gone") in result.error
        assert bench.started() == []

    def test_an_error_of_its_caller(self, bench):
        def fail(*_: Any) -> None:
            raise RuntimeError("the caller's own")

        assert "the caller's own" in bench.run(bench.script("leave(decision)"), accept=fail).error
        told = """print('{"progress": ["fitting", 0.5]}', flush=True); """
        assert "the caller's own" in bench.run(bench.script(told + SLEEP), progress=fail).error
        assert bench.store.versions() == []

    def test_a_ledger_that_cannot_be_flushed(self, bench):
        class Impatient(Ledger):
            def flush(self, timeout_s: float = 0.0) -> bool:
                return super().flush(0.3)

        ledger = Impatient(bench.ledger_path, ACTOR, LedgerSettings(flush_ms=5), busy_timeout_s=0.05)
        with contextlib.closing(sqlite3.connect(bench.ledger_path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            ledger.record_event(1, "trigger", "", {})
            result = bench.run(bench.script("leave(decision)"), ledger=ledger)
            other.execute("ROLLBACK")
        assert "could not be written" in result.error
        assert "locked" in result.error
        assert bench.started() == []
        # Once it is free again so is the way.
        assert bench.run(bench.script("leave(decision)"), ledger=ledger).decision == PROMOTED
        ledger.close()

    def test_a_model_that_gives_no_probability(self, champion):
        class Broken:
            n_features = len(champion.feature_names)

            def predict(self, _x: Any, _odds: float, _volatility: float) -> float:
                return float("nan")

        warm(champion)
        with pytest.raises(ValueError, match="gives nan for a row of zeros"):
            warm(dataclasses.replace(champion, model=Broken()))


class TestOneAtATime:
    def test_a_second_one_is_refused_while_one_is_at_work(self, bench):
        worker = bench.start(bench.script(SLEEP))
        assert worker.busy
        with pytest.raises(RuntimeError, match="under way"):
            worker.start(SPEC, None, bench.results.append)
        worker.cancel()
        assert bench.results == []

    def test_cancelled_it_ends_without_a_result(self, bench):
        worker = bench.start(bench.script(SLEEP))
        until(lambda: bool(bench.started()))
        assert alive(bench.started()[0])
        worker.cancel(timeout_s=FAR_S)
        assert not worker.busy
        bench.assert_nothing_left()
        assert bench.results == []

    @pytest.mark.parametrize("body", ["signal.signal(signal.SIGTERM, signal.SIG_IGN); ", "os.close(1); "])
    def test_it_ends_whatever_the_child_does_about_it(self, body, bench):
        worker = bench.start(bench.script(body + SLEEP))
        until(lambda: bool(bench.started()))
        worker.cancel(timeout_s=FAR_S)
        assert not worker.busy
        bench.assert_nothing_left()
        assert bench.results == []

    def test_cancelled_at_once_it_may_start_again(self, bench):
        worker = bench.start(bench.script("leave(decision)"))
        worker.cancel(timeout_s=FAR_S)
        assert not worker.busy
        assert bench.results == []
        before = len(bench.store.versions())
        worker.start(SPEC, None, bench.results.append)
        assert bench.result().decision == PROMOTED
        assert len(bench.store.versions()) == before + 1

    def test_cancelling_what_does_not_run_does_nothing(self, bench):
        worker = RetrainWorker(bench.ledger, bench.ledger_path, bench.store)
        worker.cancel()
        assert not worker.busy

    def test_the_one_who_takes_the_result_may_cancel(self, bench):
        worker = RetrainWorker(
            bench.ledger, bench.ledger_path, bench.store, command=bench.script("leave(decision)")
        )
        bench.worker = worker

        def done(result: RetrainResult) -> None:
            worker.cancel()
            bench.results.append(result)

        worker.start(SPEC, None, done)
        assert bench.result().decision == PROMOTED

    def test_the_result_comes_from_another_thread(self, bench):
        threads = []
        worker = RetrainWorker(
            bench.ledger, bench.ledger_path, bench.store, command=bench.script("leave(decision)")
        )
        worker.start(SPEC, None, lambda _result: threads.append(threading.current_thread()))
        until(lambda: not worker.busy)
        assert len(threads) == 1
        assert threads[0] is not threading.main_thread()


def inline(
    ledger: Ledger, store: ModelStore, spec: RetrainSpec, champion: ModelBundle | None
) -> RetrainResult:
    """Return what training in this very process gives."""
    before = store.versions()
    results: list[RetrainResult] = []
    trainer = InlineTrainer(ledger, store)
    trainer.start(spec, champion, results.append)
    assert store.versions() == before
    assert not trainer.busy
    assert len(results) == 1
    return results[0]


def test_in_a_backtest_a_challenger_gets_a_name_and_leaves_no_trace(bench, champion):
    record(bench.ledger, SERVED_ROWS)
    results: list[RetrainResult] = []
    shares: list[float] = []
    trainer = InlineTrainer(bench.ledger, bench.store, lambda _what, share: shares.append(share))
    for _ in range(2):
        trainer.start(SPEC, champion, results.append)
    trainer.start(spec_of(NOW, min_samples=10_000), champion, results.append)
    trainer.cancel()
    assert [result.bundle and result.bundle.version for result in results] == [
        "backtest-000001",
        "backtest-000002",
        None,
    ]
    assert everything_of(results[0].bundle) == everything_of(results[1].bundle)
    assert "needs 10,000" in results[2].error
    assert all(result.seconds > 0.0 for result in results)
    assert shares
    assert all(0.0 <= share <= 1.0 for share in shares)
    assert bench.store.versions() == []


def test_in_a_backtest_an_error_is_a_result_too(bench):
    record(bench.ledger, SERVED_ROWS.replace(y=np.ones(len(SERVED_ROWS))))
    result = inline(bench.ledger, bench.store, SPEC, None)
    assert (result.decision, result.bundle) == (None, None)
    assert result.error.startswith("ValueError: all ")


@pytest.mark.slow
class TestRealChild:
    def recorded(self, bench: Bench) -> tuple[str, ...]:
        """Return the command of the real child, behind a line that writes down its number."""
        return bench.script(
            f"os.execv({sys.executable!r}, [{', '.join(map(repr, CHILD_COMMAND))}, str(folder)])"
        )

    def test_it_gives_to_the_bit_what_training_here_gives(self, bench):
        history = planted(400, slope=2.0, n_regimes=2)
        turned = planted(1_000, first=400, slope=-2.0, seed=6, n_regimes=2)
        # As in a live engine: the bundle is from the store, and its rows are there only.
        saved = bench.store.save(dataclasses.replace(trained(history, REGIME), exit_times=[0.4]))
        served = bench.store.load(saved.version)
        assert served.history is None
        record(bench.ledger, turned, regime_model=REGIME.digest)
        spec = spec_of(end_of(turned), age_halflife_days=None)
        expected = inline(bench.ledger, bench.store, spec, served)
        assert expected.decision.promoted

        told: list[tuple[str, float, int]] = []

        def progress(what: str, share: float) -> None:
            [pid] = bench.started()
            told.append((what, share, os.getpriority(os.PRIO_PROCESS, pid)))

        result = bench.run(self.recorded(bench), served, spec, progress=progress)
        assert result.error == ""
        assert result.decision == expected.decision
        assert result.dropped == expected.dropped
        assert everything_of(result.bundle) == everything_of(expected.bundle)
        assert result.bundle.provenance["parent"] == served.version
        assert bench.store.versions() == [served.version, result.bundle.version]
        newest = bench.store.load_latest()
        assert everything_of(newest) == everything_of(expected.bundle)
        rows = bench.store.load_history(newest.version)
        assert column_bytes(rows) == column_bytes(expected.bundle.history)
        assert rows.label_start[0] == history.label_start[0]
        assert {"fitting the model on all rows", "saving the challenger"} <= {what for what, _, _ in told}
        shares = [share for _, share, _ in told]
        assert shares == sorted(shares)
        assert shares[0] >= 0.0
        assert shares[-1] == 1.0
        assert {priority for _, _, priority in told} == {19}

    def test_what_it_rejects_is_not_stored_and_rows_in_memory_are_handed_over(self, bench, champion):
        # A bundle that was swapped in by hand, of another store, with its rows.
        record(bench.ledger, SERVED_ROWS)
        expected = inline(bench.ledger, bench.store, SPEC, champion)
        assert not expected.decision.promoted
        result = bench.run(CHILD_COMMAND, champion)
        assert result.decision == expected.decision
        assert everything_of(result.bundle) == everything_of(expected.bundle)
        assert result.bundle.provenance["first_signal_ns"] == HISTORY.label_start[0]
        assert result.bundle.provenance["parent"] == champion.version
        assert bench.store.versions() == []

    def test_why_it_could_not_train_is_told_with_its_trace(self, bench):
        record(bench.ledger, SERVED_ROWS.replace(y=np.ones(len(SERVED_ROWS))))
        expected = inline(bench.ledger, bench.store, SPEC, None)
        result = bench.run(CHILD_COMMAND)
        assert "Traceback" in result.error
        assert result.error.endswith(expected.error)

    def test_it_dies_with_its_parent(self, bench):
        asleep = bench.script("""
            import ml4t_actor.training.child as child
            import ml4t_actor.training.worker as worker

            def sleep(folder, progress):
                progress("asleep", 0.5)
                time.sleep(600)

            worker.run_job_file = sleep
            child.main()
        """)
        (bench.folder / "spec.json").write_bytes(msgspec.json.encode(SPEC))
        parent = f"""
            import tempfile, time
            from pathlib import Path
            import msgspec
            from ml4t_actor.ledger import Ledger
            from ml4t_actor.registry import ModelStore
            from ml4t_actor.training.retraining import RetrainSpec
            from ml4t_actor.training.worker import RetrainWorker
            from ml4t_actor.settings import LedgerSettings

            folder = Path({str(bench.folder)!r})
            tempfile.tempdir = str(folder / "jobs")
            path = folder / "ledger.sqlite"
            worker = RetrainWorker(
                Ledger(path, "actor", LedgerSettings()),
                path,
                ModelStore(folder / "models"),
                progress=lambda what, share: print(what, flush=True),
                command={asleep!r},
            )
            spec = msgspec.json.decode((folder / "spec.json").read_bytes(), type=RetrainSpec)
            worker.start(spec, None, print)
            time.sleep(600)
        """
        with subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(parent)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        ) as process:
            try:
                assert process.stdout.readline() == "asleep\n"
                [child] = bench.started()
                assert alive(child)
                assert len(list(bench.jobs.iterdir())) == 1
            finally:
                process.kill()
        until(lambda: not alive(child))
        assert list(bench.jobs.iterdir()) == []

    @pytest.mark.parametrize("arguments", [[], ["{folder}/gone"], ["{folder}"]])
    def test_without_a_job_it_says_so_and_removes_nothing(self, arguments, tmp_path):
        (tmp_path / "precious").write_text("not a job")
        ended = subprocess.run(
            [*CHILD_COMMAND, *(argument.format(folder=tmp_path) for argument in arguments)],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == 1
        assert "no job.json in" in ended.stderr
        assert "Traceback" not in ended.stderr
        assert (tmp_path / "precious").exists()
