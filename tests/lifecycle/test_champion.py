"""Which model serves: one retraining at a time, and a process that ends forgets none of it."""

import dataclasses
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from nautilus_trader.model.identifiers import InstrumentId

from ml4t_actor.inference import InferenceLoop
from ml4t_actor.ledger import Ledger, OutcomeRow, SignalRow
from ml4t_actor.lifecycle import ChampionLifecycle
from ml4t_actor.lifecycle.champion import STORING_THREAD
from ml4t_actor.messages import ModelUpdate, SignalOutcome
from ml4t_actor.orchestrator import DirectHost
from ml4t_actor.registry import ModelBundle, ModelStore
from ml4t_actor.settings import LedgerSettings, MonitorSettings, RetrainSettings
from ml4t_actor.training.gate import GateDecision
from ml4t_actor.training.retraining import RetrainResult, RetrainSpec
from tests.support.retrainings import MINUTE, NAMES, SETTINGS, end_of, planted, trained
from tests.support.waiting import until

ID = InstrumentId.from_str("BTCUSDT.BINANCE")
DAY = 1_440 * MINUTE
HOUR = 60 * MINUTE
FIRST = end_of(planted(400)) + DAY  # of the clock: the model has seen all that was before
DECISION = GateDecision(
    promoted=False,
    reason="no improvement beyond chance",
    n=500,
    n_blocks=50.0,
    champion_log_loss=0.69,
    challenger_log_loss=0.69,
    baseline_log_loss=0.69,
    improvement=0.0,
    improvement_low=-0.01,
    champion_brier=0.25,
    challenger_brier=0.25,
    champion_calibration_gap=0.0,
    challenger_calibration_gap=0.0,
    champion_failed=False,
)


class Pending:
    """A trainer that is done when the test says so."""

    busy = False

    def __init__(self) -> None:
        self.started: list[RetrainSpec] = []
        self.done: list[Callable[[RetrainResult], None]] = []

    def start(self, spec: RetrainSpec, _champion: Any, done: Callable[[RetrainResult], None]) -> None:
        self.started.append(spec)
        self.done.append(done)

    def cancel(self) -> None:
        pass


class Process:
    """What one life of a node has of its champion; `end` is how it ends."""

    def __init__(self, folder: Path, now_ns: int, **settings: Any) -> None:
        self.store = ModelStore(folder / "models")
        self.ledger = Ledger(folder / "ledger.sqlite", "actor", LedgerSettings(flush_ms=10))
        self.inference = InferenceLoop(
            feature_names=NAMES,
            labels=SETTINGS.labels,
            vpin=SETTINGS.vpin,
            volatility_halflife_bars=SETTINGS.volatility_halflife_bars,
        )
        self.inference.add_instrument(ID, MINUTE)
        if (bundle := self.store.load_latest()) is not None:
            self.inference.swap(bundle)
        self.now_ns = now_ns
        self.trainer = Pending()
        self.updates: list[ModelUpdate] = []
        self.host = DirectHost(
            live=True,
            clock=lambda: self.now_ns,
            publish=self.updates.append,
            log=logging.getLogger(__name__),
        )
        self.champion = ChampionLifecycle(
            self.inference,
            self.ledger,
            self.store,
            self.trainer,
            settings=RetrainSettings(monitor=MonitorSettings(cooldown_bars=600)),
            training=SETTINGS,
            feature_names=NAMES,
            accuracy_drop_threshold=0.1,
            interval_bars=settings.get("interval_bars"),
            min_samples=settings.get("min_samples", 1),
            retrain_delay_s=0.0,
            host=self.host,
        )
        self.champion.start()

    @property
    def serving(self) -> str:
        return "" if self.inference.bundle is None else self.inference.bundle.version

    def outcome(self, name: str, paid: bool, confidence: float = 0.6, status: str = "ok") -> None:
        """Let a signal be answered, and have its outcome known now, a whole window later."""
        given = self.now_ns - SETTINGS.labels.horizon_bars * MINUTE
        row = SignalRow(
            source="test",
            signal_id=name,
            instrument_id=ID.value,
            side=1,
            strength=1.0,
            ts_event=given,
            ts_init=given,
            confidence=confidence,
            toxicity=0.1,
            vpin=0.2,
            regime=0,
            regime_weight=1.0,
            volatility=0.01,
            model_version=self.serving,
            status=status,
            latency_ns=1_000,
            entry_ts=given,
            entry=1.0,
            profit=0.01,
            stop=0.01,
            entry_bar=1,
            entry_share=0.0,
            window_end_ns=self.now_ns,
        )
        self.ledger.record_signal(row)
        self.ledger.record_outcomes(
            [OutcomeRow("test", name, 1 if paid else -1, int(paid), 0.01, self.now_ns, 10, 1.0)]
        )
        known = SignalOutcome(
            instrument_id=ID,
            signal=1,
            source="test",
            signal_id=name,
            meta_confidence=confidence,
            model_version=self.serving,
            status=status,
            barrier="profit" if paid else "stop",
            label=int(paid),
            ret=0.01,
            bars=10,
            weight=1.0,
            ts_event=self.now_ns,
            ts_init=self.now_ns,
        )
        self.champion.on_outcome(row, known)

    def fail(self, n: int, name: str = "") -> None:
        """Let signals fail, a minute apart, that were told to pay."""
        for i in range(n):
            self.now_ns += MINUTE
            self.outcome(f"{name}{i}", paid=False, confidence=0.9)

    def check(self) -> list[str]:
        """Return what a check at this time asks to train for."""
        before = len(self.trainer.started)
        self.champion.check()
        return [spec.trigger for spec in self.trainer.started[before:]]

    def conclude(self, bundle: ModelBundle | None = None, **decision: Any) -> None:
        """Let the oldest training that is under way end with a decision."""
        done = self.trainer.done.pop(0)
        changed = GateDecision(
            **{name: getattr(DECISION, name) for name in DECISION.__struct_fields__} | decision
        )
        done(RetrainResult(decision=changed, bundle=bundle or self.inference.bundle))

    def end(self) -> None:
        """End as a killed process does, all that it recorded being written."""
        assert self.ledger.close()


BETTER = {"promoted": True, "challenger_log_loss": 0.6, "improvement": 0.69 - 0.6, "improvement_low": 0.01}
FAILED = {"champion_failed": True, "champion_log_loss": 0.8, "challenger_log_loss": 0.8}


@pytest.fixture(scope="module")
def bundles() -> list[ModelBundle]:
    return [dataclasses.replace(trained(planted(400, seed=seed)), version="") for seed in range(3)]


@pytest.fixture
def folder(tmp_path, bundles) -> Path:
    ModelStore(tmp_path / "models").save(bundles[0])
    return tmp_path


def test_a_model_ages_also_where_the_process_starts_anew_each_day(folder):
    asked = []
    for day in range(8):
        process = Process(folder, FIRST + day * DAY, interval_bars=5 * 1_440)
        process.outcome(f"{day}", paid=True)
        asked.append(process.check())
        if asked[-1]:
            process.conclude()
        process.end()
    assert asked == [[], [], [], [], [], ["age"], [], []]


def test_evidence_outlives_the_process_until_a_retraining_is_concluded(folder):
    process = Process(folder, FIRST)
    process.fail(150)
    process.end()
    process = Process(folder, process.now_ns + HOUR)
    [kind] = process.check()
    assert kind in ("accuracy", "calibration", "loss")
    process.end()  # while the training is under way
    process = Process(folder, process.now_ns + 12 * HOUR)
    assert process.check() == [kind]
    process.conclude()
    process.end()
    process = Process(folder, process.now_ns + 12 * HOUR)
    assert process.check() == []


def test_a_cooldown_outlives_the_process(folder):
    process = Process(folder, FIRST)
    process.fail(150)
    assert process.check()
    process.conclude()
    process.fail(150, "more ")
    process.end()
    concluded_ns = FIRST + 150 * MINUTE
    process = Process(folder, concluded_ns + 9 * HOUR)
    assert process.check() == []
    process.now_ns = concluded_ns + 10 * HOUR
    assert process.check()


def test_a_first_model_is_due_by_the_outcomes_of_all_lives(tmp_path):
    process = Process(tmp_path, FIRST, min_samples=30)
    for i in range(20):
        process.now_ns += MINUTE
        process.outcome(f"{i}", paid=bool(i % 2), confidence=0.5, status="no_model")
    assert process.check() == []
    process.end()
    process = Process(tmp_path, process.now_ns + HOUR, min_samples=30)
    for i in range(20, 30):
        assert process.check() == []
        process.now_ns += MINUTE
        process.outcome(f"{i}", paid=bool(i % 2), confidence=0.5, status="no_model")
    assert process.check() == ["first_model"]


def test_only_one_retraining_is_under_way_until_its_result_has_taken_effect(folder):
    process = Process(folder, FIRST)
    process.outcome("1", paid=True)
    process.champion.request_retrain("now")
    assert process.check() == ["manual"]
    process.champion.request_retrain("again")
    process.now_ns += DAY
    assert process.check() == []
    process.conclude()
    assert process.check() == ["manual"]
    process.end()


def test_a_promoted_challenger_does_not_serve_after_a_restart_where_the_user_swapped_meanwhile(
    folder, bundles
):
    process = Process(folder, FIRST)
    process.outcome("1", paid=True)
    process.champion.request_retrain("now")
    process.check()
    mine = process.store.save(bundles[1])
    process.champion.hot_swap_model(mine)
    challenger = process.store.save(bundles[2])  # as the worker does before it tells
    process.conclude(challenger, **BETTER)
    assert [update.action for update in process.updates] == ["swapped", "rejected"]
    assert process.serving == mine.version
    until(lambda: len(process.store.versions()) == 4)
    process.end()
    assert Process(folder, FIRST + DAY).serving.partition("-")[2] == mine.version.partition("-")[2]


def promote(process: Process, bundle: ModelBundle) -> ModelBundle:
    process.outcome(f"{process.now_ns}", paid=True)
    process.champion.request_retrain("now")
    process.check()
    stored = process.store.save(bundle)
    process.conclude(stored, **BETTER)
    assert process.serving == stored.version
    return stored


def test_a_rollback_is_possible_after_a_restart_too_and_holds(folder, bundles):
    process = Process(folder, FIRST)
    first = process.serving
    promote(process, bundles[1])
    process.end()
    process = Process(folder, FIRST + DAY)
    process.champion.rollback()
    assert process.serving == first
    until(lambda: len(process.store.versions()) == 3)
    process.end()
    assert Process(folder, FIRST + 2 * DAY).serving.partition("-")[2] == first.partition("-")[2]


def test_a_rollback_holds_where_the_process_ended_before_it_was_stored(folder, bundles, monkeypatch):
    process = Process(folder, FIRST)
    first = process.serving
    second = promote(process, bundles[1])
    with monkeypatch.context() as patch:
        patch.setattr(ChampionLifecycle, "_store_again", lambda _self, _version: None)
        process.champion.rollback()
    process.end()
    assert process.store.versions()[-1] == second.version
    process = Process(folder, FIRST + DAY)
    assert process.serving == first
    until(lambda: len(process.store.versions()) == 3)
    process.end()


def test_a_model_that_was_rolled_back_to_and_retired_stays_retired(folder, bundles):
    process = Process(folder, FIRST)
    promote(process, bundles[1])
    process.champion.rollback()
    until(lambda: len(process.store.versions()) == 3)
    process.outcome("1", paid=False)
    process.champion.request_retrain("now")
    process.check()
    process.conclude(**FAILED)
    assert (process.updates[-1].action, process.serving) == ("retired", "")
    process.end()
    process = Process(folder, FIRST + DAY)
    assert process.serving == ""
    process.outcome("2", paid=False, status="no_model")
    assert process.check() == ["first_model"]
    assert process.trainer.started[-1].retired
    process.end()
    process.store.save(bundles[2])
    assert Process(folder, FIRST + 2 * DAY).serving == process.store.versions()[-1]


def test_a_store_that_fails_behind_a_rollback_is_logged_on_the_thread_of_the_loops(
    folder, bundles, monkeypatch, caplog
):
    process = Process(folder, FIRST)
    first = process.serving
    promote(process, bundles[1])

    def fail(*_args: object) -> None:
        raise OSError("planted: no room")

    monkeypatch.setattr(ModelStore, "adopt", fail)
    process.champion.rollback()
    assert process.serving == first
    until(lambda: STORING_THREAD not in {thread.name for thread in threading.enumerate()})
    assert not caplog.records  # the thread that stores has not touched the log
    process.host.advance(process.now_ns)
    assert "serves until a restart only: planted: no room" in caplog.text
    assert {record.thread for record in caplog.records} == {threading.get_ident()}
    process.end()
