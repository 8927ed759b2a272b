"""The learning loop in a real live `TradingNode`: threads, a whole retraining, swaps under fire, stops and troubles."""

import asyncio
import contextlib
import dataclasses
import functools
import itertools
import os
import re
import shutil
import sqlite3
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest
from nautilus_trader.model.data import Bar, BarType
from nautilus_trader.model.identifiers import InstrumentId

from backtests.synthetic import synthetic_bars
from ml4t_actor.actor.event_thread import EventThread
from ml4t_actor.config import ML4TActorConfig
from ml4t_actor.indicators.features import META_FEATURE_NAMES
from ml4t_actor.inference import InferenceLoop
from ml4t_actor.ledger import LedgerReader
from ml4t_actor.ledger.rows import stored_feature_sets
from ml4t_actor.lifecycle import LifecycleLoop
from ml4t_actor.lifecycle.champion import ChampionLifecycle
from ml4t_actor.market_data import Bars, Signals
from ml4t_actor.messages import ActorHealth, EnrichedSignal, SignalData, SignalOutcome, StrategyHealth
from ml4t_actor.orchestrator import factory
from ml4t_actor.registry import ModelBundle, ModelStore
from ml4t_actor.settings import (
    FeedSettings,
    GateSettings,
    HealthSettings,
    LedgerSettings,
    MonitorSettings,
    RegimeSettings,
    RetrainSettings,
)
from ml4t_actor.training.loop import TrainingLoop
from ml4t_actor.training.worker import RetrainWorker
from tests.support.nodes import Live, Step, Threads
from tests.support.processes import children_cpu_ticks, children_of, is_alive
from tests.support.training_settings import HORIZON, LEARNING
from tests.support.waiting import Patience, join

INSTRUMENT = InstrumentId.from_str("ABC-PERP.NOWHERE")
BAR_TYPE = BarType.from_str(f"{INSTRUMENT}-1-MINUTE-LAST-EXTERNAL")
MINUTE_NS = 60_000_000_000
NAMES = ("volatility", "momentum", "trend_strength", "strength")
N_TRAIN, N_LIVE = 3_000, 5_000
N_AFTER = 60  # of them for a second node: a state that is much older would not be taken up
WARM_BARS = 650  # after which no signal is answered `warming_up`
STALL_MAX_S = 0.5  # a database or a training on the event thread would take longer


class Planted(NamedTuple):
    """A market whose signals mostly know the next move where they are strong; after the training, where weak."""

    steps: list[Step]
    models: Path
    first: ModelBundle
    second: ModelBundle  # differs in model, columns, break-even and regimes


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    bars = synthetic_bars(7, N_TRAIN + N_LIVE, bar_minutes=1, price=100.0, volume=500.0)
    bars = dataclasses.replace(
        bars,
        # Just passed on the wall clock, which a live node goes by.
        ts_event=(time.time_ns() // MINUTE_NS - np.arange(len(bars))[::-1]) * MINUTE_NS,
        **{name: np.round(getattr(bars, name), 3) for name in ("open", "high", "low", "close", "volume")},
    )
    rng = np.random.default_rng(0)
    at = np.arange(100, len(bars), 2)
    strength = rng.random(len(at))
    ahead = np.sign(bars.close[np.minimum(at + HORIZON, len(bars) - 1)] - bars.close[at])
    right = rng.random(len(at)) < np.where(at >= N_TRAIN, 1.0 - strength, strength)
    side = np.where(ahead == 0.0, 1.0, np.where(right, ahead, -ahead)).astype(np.int8)
    known = at < N_TRAIN
    signals = Signals(bars.ts_event[at[known]], side[known], strength[known])
    models = tmp_path_factory.mktemp("models")
    history = bars[:N_TRAIN]
    first = TrainingLoop(LEARNING, feature_names=NAMES, store=ModelStore(models)).train(history, signals)
    other = TrainingLoop(
        msgspec.structs.replace(LEARNING, regime=RegimeSettings(n_regimes=2, shrinkage=1.0, seed=3)),
        feature_names=META_FEATURE_NAMES,
        store=ModelStore(tmp_path_factory.mktemp("other")),
    ).train(history, dataclasses.replace(signals, signal=-signals.signal))
    made = {
        int(i): signal_of(int(bars.ts_event[i]), int(s), float(x), f"{i}")
        for i, s, x in zip(at, side, strength, strict=True)
    }
    live = bars[N_TRAIN:]
    steps = [
        Step(bar, [made[N_TRAIN + i]] if N_TRAIN + i in made else [])
        for i, bar in enumerate(nautilus_bars(live))
    ]
    second = dataclasses.replace(other.bundle, metrics={**other.bundle.metrics, "other": True})
    return Planted(steps, models, first.bundle, second)


def nautilus_bars(bars: Bars) -> list[Bar]:
    ts = bars.ts_event.astype(np.uint64)
    columns = [np.array(getattr(bars, name)) for name in ("open", "high", "low", "close", "volume")]
    return Bar.from_raw_arrays_to_list(BAR_TYPE, 3, 3, *columns, ts, ts)


def signal_of(ts: int, side: int, strength: float, name: str) -> SignalData:
    return SignalData(
        instrument_id=INSTRUMENT,
        signal=side,
        strength=strength,
        source="planted",
        signal_id=name,
        ts_event=ts,
        ts_init=ts,
    )


@pytest.fixture
def models(planted: Planted, tmp_path: Path) -> Path:
    """Return a copy of the folder of models that a test may change."""
    return Path(shutil.copytree(planted.models, tmp_path / "models"))


def config_of(models: Path, **kwargs: Any) -> ML4TActorConfig:
    return ML4TActorConfig(
        model_path=str(models),
        bar_types=[str(BAR_TYPE)],
        feature_names=list(META_FEATURE_NAMES),
        labels=LEARNING.labels,
        vpin=LEARNING.vpin,
        volatility_halflife_bars=LEARNING.volatility_halflife_bars,
        max_bar_age_bars=1e9,
        max_signal_age=1e9,
        redis_enabled=False,
        feed=FeedSettings(warm_up=False),
        inference_timeout_ms=60_000,  # lest a busy machine makes signals late
        **{
            "retrain_min_samples": 10**9,
            "ledger": LedgerSettings(flush_ms=50),
            "retraining": RetrainSettings(
                check_seconds=0.1,
                monitor=MonitorSettings(cooldown_bars=0),
                gate=GateSettings(confidence=0.95),
            ),
            **kwargs,
        },
    )


def given(steps: Sequence[Step]) -> list[str]:
    return [signal.signal_id for step in steps for signal in step.signals]


def ids(messages: Iterable[Any]) -> list[str]:
    return [message.signal_id for message in messages]


def test_whatever_thread_calls_all_that_follows_happens_on_the_event_thread(planted, models, monkeypatch):
    threads = Threads()
    threads.watch(monkeypatch, EventThread, "call")
    for owner, names in (
        (LifecycleLoop, ("check", "record", "on_bar", "_on_outcome")),
        (ChampionLifecycle, ("_finish", "request_retrain")),
        (InferenceLoop, ("swap", "process_signal", "update_bar")),
    ):
        for name in names:
            threads.watch(monkeypatch, owner, name)
    command = (sys.executable, "-c", "import sys; sys.exit('no training here')")
    monkeypatch.setattr(factory, "RetrainWorker", functools.partial(RetrainWorker, command=command))
    live = Live(config_of(models))
    actor = live.actor
    steps = planted.steps[: WARM_BARS + HORIZON]
    ts = steps[-1].bar.ts_event
    stream = iter(signal_of(ts, 1, 0.5, f"external-{i}") for i in range(150))

    def external(n: int) -> None:
        for signal in itertools.islice(stream, n):
            actor.on_data(signal)

    def before_and_after_a_swap() -> None:
        external(50)
        actor.hot_swap_model(planted.second)
        external(50)

    def after_a_rollback() -> None:
        actor.rollback()
        external(50)

    async def scenario(live: Live) -> None:
        await live.feed(steps)
        await live.in_thread(before_and_after_a_swap)
        await live.until(lambda: actor.inference.bundle is planted.second)
        await live.in_thread(after_a_rollback)
        await live.in_thread(lambda: actor.request_retrain("from another thread"))
        await live.until(lambda: [u for u in live.updates if u.action == "failed"])

    live.run(scenario)
    assert threads.pop("call") - {live.thread}  # timers, and what is called from a thread of its own
    assert live.publishing_threads == {live.thread}
    assert set(threads) == {
        "check", "_finish", "record", "on_bar", "request_retrain", "_on_outcome", "swap", "process_signal",
        "update_bar",
    }  # fmt: skip
    assert all(seen == {live.thread} for seen in threads.values()), threads
    assert live.of(SignalOutcome)
    external_ones = [e for e in live.enriched if e.signal_id.startswith("external-")]
    assert [(e.signal_id, e.model_version) for e in external_ones] == [
        (f"external-{i}", planted.second.version if 50 <= i < 100 else planted.first.version)
        for i in range(150)
    ]
    assert [(u.action, u.trigger) for u in live.updates] == [
        ("swapped", "user"),
        ("rolled_back", "user"),
        ("failed", "manual"),
    ]
    assert "no training here" in live.updates[-1].reason
    assert not actor.counts


@pytest.mark.slow
def test_under_swaps_at_full_speed_each_signal_is_answered_wholly_by_one_version(planted, models):
    live = Live(config_of(models))
    actor = live.actor
    bundles = {bundle.version: bundle for bundle in (planted.first, planted.second)}
    warm, more = planted.steps[:WARM_BARS], itertools.cycle(planted.steps[WARM_BARS:])
    sent: list[str] = []

    def other() -> ModelBundle:
        return planted.first if actor.inference.bundle is planted.second else planted.second

    def swap_from_outside(over: threading.Event) -> None:
        for bundle in itertools.cycle((planted.second, planted.first)):
            if over.wait(0.002):
                return
            actor.hot_swap_model(bundle)

    def swap_from_within(enriched: EnrichedSignal) -> None:
        if enriched.signal_id.endswith("50"):
            actor.hot_swap_model(other())

    def changes() -> int:
        versions = [e.model_version for e in live.enriched]
        return sum(a != b for a, b in itertools.pairwise(versions))

    async def fire(live: Live) -> None:
        patience = Patience("enough changes", lambda: (len(live.enriched), changes()))
        for k in itertools.count():
            if k % 100 == 0 and len(sent) >= 5_600 and changes() >= 220:
                break
            patience.check()
            step = next(more)
            batch = [
                signal_of(step.bar.ts_event, 1 - 2 * (i % 2), (k * 0.37 + i * 0.11) % 1.0, f"{len(sent) + i}")
                for i in range(8)
            ]
            sent.extend(ids(batch))
            live.send(step.bar, *batch)
            if k % 15 == 0:
                actor.hot_swap_model(other())
            await asyncio.sleep(0)
        await live.taken()

    async def scenario(live: Live) -> None:
        await live.feed(Step(step.bar, []) for step in warm)
        live.node.kernel.msgbus.subscribe(topic="data.EnrichedSignal*", handler=swap_from_within)
        async with live.beside(swap_from_outside):
            await fire(live)

    live.run(scenario)
    assert ids(live.enriched) == sent
    assert not actor.counts
    assert len([u for u in live.updates if u.version != u.previous_version]) >= 200
    by_id = {e.signal_id: e for e in live.enriched}
    answered = 0
    with contextlib.closing(sqlite3.connect(models / "ledger.sqlite")) as connection:
        names = stored_feature_sets(connection)
        rows = connection.execute(
            "SELECT signal_id, side, feature_set, features, regime_probabilities, regime_model, model_version "
            "FROM signals ORDER BY id"
        ).fetchall()
    assert [row[0] for row in rows] == sent
    for signal_id, side, feature_set, features, probabilities, regime_model, version in rows:
        enriched, bundle = by_id[signal_id], bundles[version]
        assert (enriched.model_version, enriched.signal) == (version, side)
        served = dict(zip(names[feature_set], np.frombuffer(features), strict=True))
        belief = np.frombuffer(probabilities)
        assert regime_model == bundle.regime.digest
        assert enriched.regime == bundle.regime.regime(belief)
        if enriched.status != "ok":
            assert enriched.status == "novel_input"
            continue
        answered += 1
        x = np.array([served[name] for name in bundle.feature_names])
        volatility = enriched.volatility
        odds, break_even = bundle.trade_odds().of(volatility)
        assert enriched.meta_confidence == bundle.model.predict(x, odds, volatility)
        assert enriched.break_even == break_even
        assert enriched.regime_weight == bundle.regime.weight(belief)
    assert answered >= 5_000
    # The two would not agree by chance.
    assert planted.first.regime.n_regimes != planted.second.regime.n_regimes


def test_a_stop_ends_the_training_process_and_completes_the_ledger(planted, models):
    unending = GateSettings(bootstrap_samples=10**6)
    live = Live(config_of(models, retraining=RetrainSettings(check_seconds=0.1, gate=unending)))
    steps = planted.steps[:600]
    child: list[int] = []

    async def scenario(live: Live) -> None:
        await live.feed(steps)
        before = set(children_of(os.getpid()))
        live.actor.request_retrain("to be stopped in it")
        await live.until(lambda: set(children_of(os.getpid())) - before)
        child.extend(set(children_of(os.getpid())) - before)
        live.send(*planted.steps[600].signals, *planted.steps[601].signals)
        await live.taken()

    live.run(scenario)
    assert len(child) == 1
    assert not is_alive(child[0])
    assert live.log.errors == []
    assert live.updates == []
    frame = LedgerReader(models / "ledger.sqlite").signals()
    assert frame["signal_id"].tolist() == ids(live.enriched) == given(planted.steps[:602])
    assert frame["label"].notna().sum() == len(live.of(SignalOutcome)) > 200
    assert not +live.actor.lifecycle.ledger.counts


def test_no_signal_is_answered_after_the_stop_that_completed_the_ledger(planted, models):
    live = Live(config_of(models))
    steps = planted.steps[:50]
    late = signal_of(steps[-1].bar.ts_event, 1, 0.5, "late")

    async def scenario(live: Live) -> None:
        await live.feed(steps)
        thread = threading.Thread(target=live.actor.on_data, args=(late,), daemon=True)
        thread.start()
        join(thread)  # handed over to the event loop, which does not get to it
        live.actor.stop()
        await asyncio.sleep(0.05)

    live.run(scenario)
    assert ids(live.enriched) == given(steps)
    assert LedgerReader(models / "ledger.sqlite").signals()["signal_id"].tolist() == given(steps)


def test_a_failure_inside_learning_is_counted_and_costs_no_answer(planted, models, monkeypatch):
    live = Live(config_of(models))
    steps = planted.steps[:200]
    for name in ("record", "on_bar", "check"):
        original = getattr(LifecycleLoop, name)
        calls = itertools.count()

        def fail_once(*args: Any, original: Any = original, calls: Any = calls) -> Any:
            if next(calls) == 3:
                raise OSError("planted")
            return original(*args)

        monkeypatch.setattr(LifecycleLoop, name, fail_once)

    async def scenario(live: Live) -> None:
        await live.feed(steps)
        await live.until(lambda: live.actor.counts["error in checking"])

    live.run(scenario)
    assert ids(live.enriched) == given(steps)
    # A signal's own bar comes from the cache, just before it.
    counts = live.actor.counts
    assert counts.pop("error in on_bar", 0) + counts.pop("error in catching up with the cache", 0) == 1
    assert counts == {"error in recording a signal": 1, "error in checking": 1}


def foreign_file(path: Path) -> None:
    path.write_bytes(b"not a database" * 1_000)


def foreign_database(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE mine (x)")


def file_in_place_of_the_folder(path: Path) -> None:
    path.parent.write_text("in the way")


def another_process_in_the_midst(path: Path) -> sqlite3.Connection:
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    return holder


@pytest.mark.parametrize(
    "spoil",
    [
        Path.mkdir,
        foreign_file,
        foreign_database,
        file_in_place_of_the_folder,
        pytest.param(another_process_in_the_midst, marks=pytest.mark.slow),
    ],
)
def test_without_a_usable_ledger_signals_are_answered_and_nothing_is_trained(
    planted, models, tmp_path, spoil
):
    path = tmp_path / "ledgers" / "ledger"
    if spoil is not file_in_place_of_the_folder:
        path.parent.mkdir()
    holder = spoil(path)
    before = path.read_bytes() if path.is_file() else None
    live = Live(
        config_of(
            models, ledger=LedgerSettings(path=str(path)), retrain_min_samples=1, retrain_interval_bars=1
        )
    )
    steps = planted.steps[: WARM_BARS + 100]

    async def scenario(live: Live) -> None:
        await live.feed(steps)
        with pytest.raises(RuntimeError, match="ledger"):
            live.actor.request_retrain()
        await asyncio.sleep(0.3)  # in which the timer checks

    with contextlib.closing(holder) if holder else contextlib.nullcontext():
        live.run(scenario)
    assert ids(live.enriched) == given(steps)
    assert live.enriched[-1].status == "ok"
    assert len(live.of(SignalOutcome)) > 100
    assert live.updates == []
    assert live.longest_stall_s < STALL_MAX_S
    assert live.actor.counts == {"no ledger": 1}
    assert (path.read_bytes() if path.is_file() else None) == before


@pytest.mark.slow
def test_a_locked_ledger_delays_nothing_and_loses_nothing(planted, models):
    live = Live(config_of(models))
    steps = planted.steps[: WARM_BARS + 300]
    path = models / "ledger.sqlite"

    async def scenario(live: Live) -> None:
        await live.feed(steps[:WARM_BARS])
        ledger = live.actor.lifecycle.ledger
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as lock:
            lock.execute("BEGIN IMMEDIATE")
            await live.feed(steps[WARM_BARS : WARM_BARS + 150])
            live.actor.hot_swap_model(planted.second)
            await live.feed(steps[WARM_BARS + 150 :])
            await live.until(lambda: ledger.counts["write_errors"])
            await live.until(lambda: live.log.errors)
            assert len(live.enriched) == len(given(steps))

    live.run(scenario)
    assert live.longest_stall_s < STALL_MAX_S
    assert "rows wait in memory" in live.log.errors[0]
    frame = LedgerReader(path).signals()
    assert frame["signal_id"].tolist() == ids(live.enriched) == given(steps)
    assert [u.action for u in live.updates] == ["swapped"]
    assert live.actor.lifecycle.ledger.counts["dropped"] == 0


class Lives(NamedTuple):
    """Two nodes, one after the other, on one folder."""

    models: Path
    before: Live
    after: Live
    threads: Threads
    frame: Any  # of the signals in the ledger, after the first
    events: list[dict[str, Any]]
    n_repeated: int


@pytest.fixture(scope="module")
def lives(planted: Planted, tmp_path_factory: pytest.TempPathFactory) -> Lives:
    models = Path(shutil.copytree(planted.models, tmp_path_factory.mktemp("lives") / "models"))
    config = config_of(models, retrain_min_samples=1_200)
    threads = Threads()
    fed = 0

    async def until_promoted(live: Live) -> None:
        nonlocal fed
        steps = planted.steps
        await live.feed(steps[:3_600])
        fed = 3_600

        def promoted() -> bool:
            return any(update.action == "promoted" for update in live.updates)

        patience = Patience("a promotion", lambda: (fed, len(live.updates), children_cpu_ticks()))
        while not promoted():
            patience.check()
            if fed < N_LIVE - 10 * N_AFTER:
                await live.feed(steps[fed : fed + 1])
                fed += 1
            await asyncio.sleep(0.01)
        await live.feed(steps[fed:-N_AFTER])

    with pytest.MonkeyPatch.context() as patch:
        threads.watch(patch, ChampionLifecycle, "_finish")
        threads.watch(patch, InferenceLoop, "swap")
        before = Live(config).run(until_promoted)
    reader = LedgerReader(models / "ledger.sqlite")
    frame, events = reader.signals(), reader.events()
    told = events[["ts", "kind", "detail"]].to_dict("records")
    last = planted.steps[-N_AFTER - 60 : -N_AFTER]

    async def go_on(live: Live) -> None:
        live.send(*(signal for step in last for signal in step.signals))
        await live.feed(planted.steps[-N_AFTER:])

    after = Live(config_of(models)).run(go_on)
    return Lives(models, before, after, threads, frame, told, len(given(last)))


@pytest.mark.slow
def test_a_model_that_the_market_left_is_replaced_while_the_node_runs(planted, lives):
    live = lives.before
    update = next(u for u in live.updates if u.action == "promoted")
    assert update.previous_version == planted.first.version
    assert update.trigger in ("accuracy", "calibration", "loss")
    assert update.challenger_log_loss < update.champion_log_loss
    assert update.improvement_low > 0.0
    stored = ModelStore(lives.models).load(update.version)
    assert stored.provenance["parent"] == planted.first.version
    at = live.published.index(update)
    answers = [e for e in live.published[at:] if type(e) is EnrichedSignal]
    assert {e.model_version for e in answers if e.status == "ok"} >= {update.version}
    assert answers[0].model_version == update.version
    assert all(
        e.model_version == planted.first.version for e in live.published[:at] if type(e) is EnrichedSignal
    )
    assert ids(live.enriched) == given(planted.steps[:-N_AFTER])
    assert live.longest_stall_s < STALL_MAX_S
    assert lives.threads == {"_finish": {live.thread}, "swap": {live.thread}}
    assert live.log.errors == []
    assert not live.actor.counts


@pytest.mark.slow
def test_the_ledger_of_a_live_node_tells_what_it_published(lives):
    live, frame = lives.before, lives.frame
    assert frame["signal_id"].tolist() == ids(live.enriched)
    for column, name in (
        ("confidence", "meta_confidence"),
        ("model_version", "model_version"),
        ("status", "status"),
        ("toxicity", "toxicity"),
        ("regime_weight", "regime_weight"),
    ):
        assert frame[column].tolist() == [getattr(e, name) for e in live.enriched]
    known = frame[frame["label"].notna()].set_index("signal_id")
    outcomes = {o.signal_id: o for o in live.of(SignalOutcome)}
    assert len(outcomes) == len(live.of(SignalOutcome)) == len(known)
    for name in ("label", "bars", "ret", "weight"):
        assert known[name].fillna(0).to_dict() == {key: getattr(o, name) for key, o in outcomes.items()}
    assert {t.value for t in known["ts_outcome"]} == {o.ts_event for o in outcomes.values()}
    told = [event["detail"] for event in lives.events if event["kind"] not in ("trigger", "serving")]
    assert told == [update.to_dict() for update in live.updates]


@pytest.mark.slow
def test_a_second_node_goes_on_where_the_first_one_stopped(lives, planted):
    live = lives.after
    promoted = [u for u in lives.before.updates if u.action == "promoted"][-1]
    assert live.actor.inference.bundle.version == promoted.version
    assert live.actor.counts == {"repeated": lives.n_repeated}
    assert ids(live.enriched) == given(planted.steps[-N_AFTER:])
    assert live.enriched[0].status in ("ok", "novel_input")
    assert {e.model_version for e in live.enriched} == {promoted.version}
    # What was open when the first one stopped was resolved by the second, nothing twice.
    first, second = ids(lives.before.of(SignalOutcome)), ids(live.of(SignalOutcome))
    assert not set(first) & set(second)
    still_open = [key for key in ids(lives.before.enriched) if key not in set(first)]
    assert set(still_open[20:]) <= set(second)  # the first few signals came before there was a volatility


def test_a_node_without_its_instrument_is_refused_and_names_it(planted, models):
    live = Live(config_of(models))
    live.node.kernel.cache.reset()
    with pytest.raises(RuntimeError, match=r"the node has no instrument ABC-PERP\.NOWHERE: load it"):
        live.run(lambda live: live.taken())
    assert not live.enriched


def test_health_is_told_on_a_timer_and_to_prometheus(planted, models):
    settings = HealthSettings(publish_seconds=0.1, metrics_port=0)
    live = Live(config_of(models, health=settings))
    told: list[ActorHealth] = []
    live.node.kernel.msgbus.subscribe("data.ActorHealth*", told.append)
    steps = planted.steps[: WARM_BARS + 100]
    scraped: list[str] = []

    def scrape() -> None:
        port = live.actor._live.health._server.port
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as response:
            scraped.append(response.read().decode())

    def strategy_says(name: str, **fields) -> None:
        quiet = {"foreign_positions": "{}", "unsettled_entries": "{}", "ok": True, "problems": ""}
        said = StrategyHealth(strategy_id=name, **quiet | fields)
        live.node.kernel.msgbus.publish("data.StrategyHealth", said)

    async def scenario(live: Live) -> None:
        await live.feed(steps)
        strategy_says("B-1")
        strategy_says("A-1")
        await live.in_thread(
            lambda: strategy_says("A-1", foreign_positions='{"X.Y":"0.5"}', ok=False, problems="by hand")
        )
        n = len(told)
        await live.until(lambda: len(told) > n + 1)
        await live.in_thread(scrape)

    live.run(scenario)
    assert 'ml4t_foreign_position{instrument="X.Y",strategy="A-1"} 0.5' in scraped[0]
    assert 'ml4t_strategy_healthy{strategy="A-1"} 0.0' in scraped[0]
    assert 'ml4t_strategy_healthy{strategy="B-1"} 1.0' in scraped[0]
    health = told[-1]
    assert health.model_version == planted.first.version
    assert health.counts_by_kind["signals"] == dict(Counter(e.status.value for e in live.enriched))
    assert health.latency_n == len(live.enriched)
    assert 0 < health.latency_p50_ns <= health.latency_p99_ns <= health.latency_max_ns
    assert health.latency_max_ns == max(e.latency_ns for e in live.enriched)
    assert health.open_signals == live.actor.lifecycle.open_signals
    assert (health.inbound, health.outbound, health.outbox_depth) == ("off", "off", 0)
    assert health.retraining is False
    assert [h.ts_event for h in told] == sorted({h.ts_event for h in told})
    ok = health.counts_by_kind["signals"]["ok"]
    assert re.search(rf'^ml4t_signals_total{{status="ok"}} {ok}\.0$', scraped[0], re.MULTILINE)
    with pytest.raises(OSError):
        scrape()  # the port is free again
