"""The orchestrator called directly: no engine, no Redis. That it answers as the actor does is in `tests/lifecycle`."""

import subprocess
import sys
import threading

import numpy as np
import pytest

from backtests.market import load_markets
from ml4t_actor import (
    InferenceLoop,
    LedgerReader,
    LedgerSettings,
    ML4TActorConfig,
    ML4TOrchestrator,
    ModelStore,
    SignalData,
    TrainingLoop,
)
from ml4t_actor.market_data import MINUTE_NS
from ml4t_actor.orchestrator import DirectHost
from ml4t_actor.settings import (
    LabelSettings,
    TrainingSettings,
)
from tests.support.engines import without_latency
from tests.support.paths import ROOT
from tests.support.training_settings import SETTINGS
from tests.support.waiting import join

NAMES = ("volatility", "momentum", "trend_strength")
ID = "ETHUSDT-PERP.BINANCE"
N_TRAIN = 4_000


@pytest.fixture(scope="module")
def bars():
    return load_markets("binance_flow_1m", synthetic=True)[1].bars[:6_000]


@pytest.fixture(scope="module")
def stored(bars, tmp_path_factory):
    """Return a folder with two versions."""
    folder = tmp_path_factory.mktemp("models")
    for seed in (0, 1):
        TrainingLoop(
            SETTINGS,
            feature_names=NAMES[: 3 - seed],
            store=ModelStore(folder),
        ).train(bars[:N_TRAIN])
    return folder


def config_of(folder, **kwargs) -> ML4TActorConfig:
    return ML4TActorConfig(
        model_path=str(folder),
        feature_names=list(NAMES),
        labels=SETTINGS.labels,
        vpin=SETTINGS.vpin,
        volatility_halflife_bars=SETTINGS.volatility_halflife_bars,
        retrain_min_samples=10**9,
        **({"bar_types": [f"{ID}-1-MINUTE-LAST-EXTERNAL"]} | kwargs),
    )


def signal_at(ts: int, side: int = 1, name: str = "") -> SignalData:
    return SignalData(
        instrument_id=ID,
        signal=side,
        strength=1.0,
        source="me",
        signal_id=name or f"{ts}",
        ts_event=ts,
        ts_init=ts,
    )


class Kept:
    """A host whose messages and log are kept."""

    def __init__(self, **kwargs) -> None:
        self.messages: list = []
        self.lines: list[str] = []
        self.host = DirectHost(publish=self.messages.append, log=self, **kwargs)

    def info(self, message: str) -> None:
        self.lines.append(message)

    warning = error = info


@pytest.fixture
def kept() -> Kept:
    return Kept()


@pytest.fixture
def warm(stored, bars, kept):
    """Return an orchestrator that has seen enough to answer."""
    orchestrator = ML4TOrchestrator(config_of(stored), kept.host)
    orchestrator.start()
    for bar in bars[N_TRAIN : N_TRAIN + 1_000].tuples():
        orchestrator.update_bar(ID, *bar)
    return orchestrator


def test_history_given_with_a_signal_is_answered_as_the_inference_loop_answers_it(stored, bars):
    now = int(bars.ts_event[5_000])
    orchestrator = ML4TOrchestrator(config_of(stored, bar_types=[]))
    orchestrator.start()
    bundle = ModelStore(stored).load_latest()
    loop = InferenceLoop(
        bundle, labels=SETTINGS.labels, vpin=SETTINGS.vpin, volatility_halflife_bars=20, feature_names=NAMES
    )
    answers = [o.process_signal(signal_at(now), bars[4_000:5_001]) for o in (orchestrator, loop)]
    assert answers[0].status == "ok"
    assert without_latency(answers[:1]) == without_latency(answers[1:])
    # The rest of the history comes later, and what was seen is passed over; the signal is followed meanwhile.
    orchestrator.process_signal(signal_at(int(bars.ts_event[5_100])), bars[4_500:5_101])
    frame = LedgerReader(orchestrator.lifecycle.ledger).signals()
    assert len(frame) == 2
    assert frame["label"].notna().tolist() == [True, False]


def test_a_repeated_id_is_answered_anew_and_recorded_once(warm, bars):
    now = int(bars.ts_event[N_TRAIN + 999])
    first = warm.process_signal(signal_at(now, name="1"))
    again = warm.process_signal(signal_at(now, side=-1, name="1"))
    assert (first.status, again.status) == ("ok", "ok")
    assert again.signal == -1
    assert warm.problems.counts == {"repeated": 1}
    assert LedgerReader(warm.lifecycle.ledger).signals()["side"].tolist() == [1]


@pytest.mark.parametrize(
    ("side", "ret", "label"), [(1, 0.01, 1), (-1, 0.0003, 1), (1, 0.0001, 0), (1, -0.5, 0)]
)
def test_an_outcome_that_is_known_otherwise_stands_and_no_bar_changes_it(warm, bars, kept, side, ret, label):
    now = int(bars.ts_event[N_TRAIN + 999])
    warm.process_signal(signal_at(now, side, name="1"))
    warm.process_signal(signal_at(now, side, name="2"))
    warm.record_outcome("me", "1", ret)
    [outcome] = kept.messages
    assert (outcome.signal_id, outcome.label, outcome.ret, outcome.ts_event) == ("1", label, ret, now)
    for bar in bars[N_TRAIN + 1_000 : N_TRAIN + 1_030].tuples():
        warm.update_bar(ID, *bar)
    assert [o.signal_id for o in kept.messages] == ["1", "2"]  # the other one by its barriers
    frame = LedgerReader(warm.lifecycle.ledger).signals()
    assert frame["label"].tolist()[0] == label
    assert frame["ret"].tolist()[0] == ret


def test_an_outcome_that_nothing_awaits_or_that_is_none_is_refused(warm, bars, kept):
    now = int(bars.ts_event[N_TRAIN + 999])
    with pytest.raises(ValueError, match="no outcome of signal '1' of 'me' is awaited"):
        warm.record_outcome("me", "1", 0.01)
    warm.process_signal(signal_at(now, name="1"))
    with pytest.raises(ValueError, match="`ret` was nan"):
        warm.record_outcome("me", "1", np.nan)
    warm.record_outcome("me", "1", 0.01)
    with pytest.raises(ValueError, match="is awaited"):
        warm.record_outcome("me", "1", 0.01)
    assert len(kept.messages) == 1


def test_it_trains_stores_and_lets_the_model_serve(bars, tmp_path, kept):
    orchestrator = ML4TOrchestrator(config_of(tmp_path), kept.host)
    orchestrator.start()
    for bar in bars[:N_TRAIN].tuples():
        orchestrator.update_bar(ID, *bar)
    now = int(bars.ts_event[N_TRAIN - 1])
    assert orchestrator.process_signal(signal_at(now)).status == "no_model"
    result = orchestrator.train(bars[:N_TRAIN])
    assert result.bundle.settings == orchestrator.config.training_settings()
    assert ModelStore(tmp_path).versions() == [result.bundle.version]
    orchestrator.hot_swap_model(result.bundle)
    enriched = orchestrator.process_signal(signal_at(now + 1))
    assert (enriched.status, enriched.model_version) == ("ok", result.bundle.version)
    assert [u.action for u in kept.messages] == ["swapped"]
    assert any("training" in line for line in kept.lines)


def test_a_swap_from_another_thread_is_done_at_the_next_event(warm, stored, bars):
    older, newer = ModelStore(stored).versions()
    bundle = ModelStore(stored).load(older)
    thread = threading.Thread(target=warm.hot_swap_model, args=(bundle,), daemon=True)
    thread.start()
    join(thread)
    assert warm.inference.bundle.version == newer
    last = int(bars.ts_event[N_TRAIN + 999])
    assert warm.process_signal(signal_at(last)).model_version == older
    warm.rollback()
    assert warm.process_signal(signal_at(last + 1)).model_version == newer


def test_a_live_one_goes_on_where_the_last_life_ended(stored, bars, tmp_path):
    config = config_of(
        stored, ledger=LedgerSettings(path=str(tmp_path / "ledger.sqlite"), flush_ms=10), max_bar_age_bars=1e9
    )
    clock = {"now": int(bars.ts_event[N_TRAIN])}

    def begin() -> ML4TOrchestrator:
        orchestrator = ML4TOrchestrator(config, Kept(live=True, clock=lambda: clock["now"]).host)
        orchestrator.start()
        return orchestrator

    first = begin()
    for bar in bars[N_TRAIN : N_TRAIN + 1_000].tuples():
        clock["now"] = bar[0]
        first.update_bar(ID, *bar)
    first.process_signal(signal_at(clock["now"], name="1"))
    expected = first.process_signal(signal_at(clock["now"], name="2"))
    first.stop()
    second = begin()
    assert second.lifecycle.open_signals == 2
    assert second.is_repeated(signal_at(clock["now"], name="1"))
    again = second.process_signal(signal_at(clock["now"], name="2"))
    assert without_latency([again]) == without_latency([expected])
    assert second.problems.counts == {"repeated": 1}
    second.stop()


@pytest.mark.parametrize(("first", "looks_ahead"), [(0, True), (N_TRAIN, False)])
def test_a_model_that_knows_the_future_is_warned_of_once_the_clock_has_begun(
    stored, bars, kept, first, looks_ahead
):
    orchestrator = ML4TOrchestrator(config_of(stored), kept.host)
    orchestrator.start()
    assert not any("look ahead" in line for line in kept.lines)
    for bar in bars[first : first + 3].tuples():
        orchestrator.update_bar(ID, *bar)
    assert any("results look ahead" in line for line in kept.lines) == looks_ahead


def test_before_it_is_started_it_says_what_to_do(stored):
    orchestrator = ML4TOrchestrator(config_of(stored))
    for ask in (
        lambda: orchestrator.lifecycle,
        lambda: orchestrator.retrain_monitor,
        orchestrator.rollback,
        orchestrator.request_retrain,
    ):
        with pytest.raises(RuntimeError, match="call `start`"):
            ask()
    assert orchestrator.save() == {}


def test_the_monitor_is_the_one_that_watches_the_model(warm):
    assert warm.retrain_monitor is warm.lifecycle.champion.monitor
    assert warm.retrain_monitor.n_outcomes == 0


def test_it_loads_no_engine():
    code = (
        "from ml4t_actor import ML4TOrchestrator, InferenceLoop\nimport sys\n"
        "print(*(n for n in sys.modules if n in ('redis', 'sklearn') or n.startswith("
        "('nautilus_trader.backtest.engine', 'nautilus_trader.live.node', 'nautilus_trader.system.kernel'))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT, timeout=300
    )
    assert done.stdout.split() == []


class TestLoadModel:
    """`InferenceLoop.load_model`: the newest bundle of a folder that is whole and fits."""

    def loop(self, **kwargs) -> InferenceLoop:
        return InferenceLoop(
            feature_names=NAMES,
            labels=SETTINGS.labels,
            vpin=SETTINGS.vpin,
            volatility_halflife_bars=20,
            **kwargs,
        )

    def test_the_newest_serves(self, stored):
        for loop, path in ((self.loop(), stored), (self.loop(model_path=stored), None)):
            assert loop.load_model(path) is True
            assert loop.bundle.version == ModelStore(stored).versions()[-1]

    def test_a_version_can_be_named(self, stored):
        loop = self.loop()
        version = ModelStore(stored).versions()[0]
        assert loop.load_model(stored / version) is True
        assert loop.bundle.version == version

    def test_where_there_is_none_the_present_one_stays(self, stored, tmp_path):
        loop = self.loop()
        assert loop.load_model(tmp_path) is False
        assert loop.load_model(tmp_path / "absent") is False
        assert loop.bundle is None
        loop.load_model(stored)
        assert loop.load_model(tmp_path) is False
        assert loop.bundle is not None

    def test_what_is_damaged_or_does_not_fit_is_passed_over_with_the_reason(self, stored, bars, tmp_path):
        store = ModelStore(tmp_path)
        good = store.adopt(ModelStore(stored), ModelStore(stored).versions()[0]).version
        other = TrainingLoop(
            TrainingSettings(labels=LabelSettings(horizon_bars=30), validation=SETTINGS.validation),
            feature_names=NAMES,
            store=store,
        ).train(bars[:N_TRAIN])
        damaged = store.adopt(ModelStore(stored), ModelStore(stored).versions()[1]).version
        (tmp_path / damaged / "manifest.json").write_text("{")
        refused = {}
        loop = self.loop(model_path=tmp_path)
        assert loop.load_model(refused=lambda version, reason: refused.update({version: reason})) is True
        assert loop.bundle.version == good
        assert set(refused) == {damaged, other.bundle.version}
        assert "`labels`" in refused[other.bundle.version]
        assert loop.load_model(tmp_path / damaged) is False
        assert loop.bundle.version == good


class TestDirectHost:
    def test_what_is_due_before_an_event_happens_before_it_at_its_time_and_in_order(self):
        host = DirectHost()
        seen = []
        host.advance(10 * MINUTE_NS)
        host.call_every("tick", 60.0, lambda: seen.append(("tick", host.now())))
        host.call_later("late", 60.0, lambda: seen.append(("late", host.now())))
        host.call_later("early", 30.0, lambda: seen.append(("early", host.now())))
        host.advance(11 * MINUTE_NS)
        assert seen == [("early", 10 * MINUTE_NS + 30 * 10**9)]
        host.advance(13 * MINUTE_NS + 1)
        assert seen[1:] == [
            ("tick", 11 * MINUTE_NS),
            ("late", 11 * MINUTE_NS),
            ("tick", 12 * MINUTE_NS),
            ("tick", 13 * MINUTE_NS),
        ]
        host.cancel_timers()
        host.advance(20 * MINUTE_NS)
        assert len(seen) == 5
        host.advance(5)  # an event of before does not turn the clock back
        assert host.now() == 20 * MINUTE_NS

    def test_what_raises_is_logged_and_keeps_nothing_else_from_happening(self, kept):
        seen = []
        kept.host.advance(1)
        kept.host.call_later("a task", 1.0, lambda: 1 / 0)
        kept.host.call_later("another", 1.0, lambda: seen.append(1))
        kept.host.advance(10**10)
        assert kept.lines == ["a task failed: ZeroDivisionError('division by zero')"]
        assert seen == [1]

    def test_live_one_call_makes_up_for_those_that_were_missed(self):
        clock = {"now": 1_000 * MINUTE_NS}
        host = DirectHost(live=True, clock=lambda: clock["now"])
        seen = []
        host.call_every("tick", 60.0, lambda: seen.append(host.now()))
        host.advance(0)
        assert seen == []
        clock["now"] += 10 * MINUTE_NS + 5
        host.advance(0)
        host.advance(0)
        assert seen == [clock["now"]]
        clock["now"] += MINUTE_NS
        host.advance(0)
        assert len(seen) == 2
