"""The learning loop inside a real `BacktestEngine`: outcomes, retraining, swaps, and nothing of the future."""

import dataclasses

import msgspec
import numpy as np
import pytest
from nautilus_trader.common.actor import Actor
from nautilus_trader.config import ActorConfig

from backtests.market import Market, load_markets, nautilus_bars
from ml4t_actor.actor import ML4TActor
from ml4t_actor.config import ML4TActorConfig
from ml4t_actor.labeling.dataset import build_dataset
from ml4t_actor.labeling.triple_barrier import triple_barrier_labels
from ml4t_actor.market_data import Bars, Signals
from ml4t_actor.messages import ModelUpdate, SignalData, SignalOutcome
from ml4t_actor.orchestrator import DirectHost, ML4TOrchestrator
from ml4t_actor.registry import ModelStore
from ml4t_actor.registry.trials import TRIALS_FILE
from ml4t_actor.settings import (
    GateSettings,
    LabelSettings,
    MonitorSettings,
    RetrainSettings,
)
from ml4t_actor.training.loop import TrainingLoop
from tests.support.engines import EmittingActor, run_engine, without_latency
from tests.support.training_settings import HORIZON, LEARNING

MINUTE_NS = 60_000_000_000
NAMES = ("volatility", "momentum", "trend_strength", "strength")
N_TRAIN, N_LIVE = 6_000, 8_000
DELAY_S = 1_800.0


@pytest.fixture(scope="module")
def market() -> Market:
    market = load_markets("binance_flow_1m", synthetic=True)[1]
    return dataclasses.replace(market, bars=market.bars[: N_TRAIN + N_LIVE])


@pytest.fixture(scope="module")
def signals(market) -> Signals:
    """Signals that mostly know the next move where they are strong, and its reverse where weak; later the other way."""
    bars = market.bars
    rng = np.random.default_rng(0)
    at = np.arange(100, len(bars), 4)
    strength = rng.random(len(at))
    ahead = np.sign(bars.close[np.minimum(at + HORIZON, len(bars) - 1)] - bars.close[at])
    drifted = at > N_TRAIN + N_LIVE // 5
    right = rng.random(len(at)) < np.where(drifted, 1.0 - strength, strength)
    side = np.where(ahead == 0.0, 1.0, np.where(right, ahead, -ahead))
    return Signals(bars.ts_event[at], side.astype(np.int8), strength)


@pytest.fixture(scope="module")
def model_path(market, signals, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    bars = market.bars[:N_TRAIN]
    known = signals[signals.ts_event <= bars.ts_event[-1]]
    TrainingLoop(LEARNING, feature_names=NAMES, store=ModelStore(folder)).train(bars, known)
    return folder


def config_of(market, model_path, **kwargs) -> ML4TActorConfig:
    return ML4TActorConfig(
        model_path=str(model_path),
        bar_types=[str(market.bar_type)],
        feature_names=list(NAMES),
        vpin=LEARNING.vpin,
        volatility_halflife_bars=LEARNING.volatility_halflife_bars,
        **{
            "labels": LEARNING.labels,
            "retrain_min_samples": 300,
            "retrain_delay": DELAY_S,
            "retraining": RetrainSettings(
                monitor=MonitorSettings(cooldown_bars=300), gate=GateSettings(confidence=0.95)
            ),
            **kwargs,
        },
    )


class Hearer(Actor):
    """Keeps outcomes and model updates as they are published, with the clock's time."""

    def __init__(self) -> None:
        super().__init__(ActorConfig(component_id="Hearer"))
        self.outcomes: list[SignalOutcome] = []
        self.updates: list[ModelUpdate] = []

    def on_start(self) -> None:
        self.msgbus.subscribe(topic="data.SignalOutcome*", handler=self.outcomes.append)
        self.msgbus.subscribe(topic="data.ModelUpdate*", handler=self.updates.append)


def emitter(market, signals) -> EmittingActor:
    known = {
        int(ts): (int(side), float(strength))
        for ts, side, strength in zip(signals.ts_event, signals.signal, signals.strength, strict=True)
    }

    def make(bar):
        if bar.ts_event not in known:
            return None
        side, strength = known[bar.ts_event]
        return SignalData(
            instrument_id=market.instrument.id,
            signal=side,
            strength=strength,
            source="planted",
            signal_id=f"{bar.ts_event}",
            ts_event=bar.ts_event,
            ts_init=bar.ts_event,
        )

    return EmittingActor(make, [market.bar_type])


def live_part(market: Market, bars: Bars | None = None) -> Market:
    return dataclasses.replace(market, bars=(market.bars if bars is None else bars)[N_TRAIN:])


def run(market, signals, model_path, *more, **kwargs):
    hearer = Hearer()
    enriched, actor, _ = run_engine(
        market,
        nautilus_bars(market),
        [hearer, emitter(market, signals), "actor", *more],
        config_of(market, model_path, **kwargs),
    )
    return enriched, hearer, actor


@pytest.fixture(scope="module")
def learned(market, signals, model_path):
    return run(live_part(market), signals, model_path)


def test_outcomes_are_the_labels_that_training_gives(market, signals, learned):
    enriched, hearer, actor = learned
    live = live_part(market).bars
    opened = [e for e in enriched if e.volatility > 0.0]
    assert len(opened) > 1_900
    events = np.searchsorted(live.ts_event, [e.ts_event for e in opened])
    volatility = np.full(len(live), np.nan)
    volatility[events] = [e.volatility for e in opened]
    labels = LEARNING.labels
    batch = triple_barrier_labels(
        live.high,
        live.low,
        live.close,
        events,
        [e.signal for e in opened],
        volatility,
        horizon=labels.horizon_bars,
        pt=labels.profit_barrier,
        sl=labels.stop_barrier,
        cost=labels.cost,
    )
    resolved = batch.end >= 0
    expected = {
        e.signal_id: (int(label), float(ret), int(live.ts_event[end]))
        for e, label, ret, end, known in zip(opened, batch.label, batch.ret, batch.end, resolved, strict=True)
        if known
    }
    assert {o.signal_id: (o.label, o.ret, o.ts_event) for o in hearer.outcomes} == expected
    assert len(hearer.outcomes) == len(expected)
    assert [o.ts_event for o in hearer.outcomes] == sorted(o.ts_event for o in hearer.outcomes)
    assert actor.lifecycle.open_signals == len(opened) - len(expected)


@pytest.fixture(scope="module")
def ended_by_signals(market, signals, tmp_path_factory):
    """A run whose labels end by signals too, a third of which are zero."""
    part = dataclasses.replace(market, bars=market.bars[N_TRAIN : N_TRAIN + 4_000])
    side = np.where(np.random.default_rng(1).random(len(signals)) < 1 / 3, 0, signals.signal).astype(np.int8)
    given = Signals(signals.ts_event, side, signals.strength)
    labels = msgspec.structs.replace(LEARNING.labels, exit_on_signal=True)
    settings = msgspec.structs.replace(LEARNING, labels=labels)
    folder, bars = tmp_path_factory.mktemp("models"), market.bars[:N_TRAIN]
    known = given[given.ts_event <= bars.ts_event[-1]]
    TrainingLoop(settings, feature_names=NAMES, store=ModelStore(folder)).train(bars, known)
    given = given[(given.ts_event >= part.bars.ts_event[0]) & (given.ts_event <= part.bars.ts_event[-1])]
    return part, given, settings, run(part, given, folder, labels=labels, retrain="off")


def test_outcomes_that_signals_end_are_the_labels_that_training_gives(ended_by_signals):
    part, given, settings, (enriched, hearer, _) = ended_by_signals
    dataset = build_dataset(part.bars, given, settings=settings, feature_names=("volatility", "strength"))
    outcomes = {o.signal_id: (o.label, o.ret, o.ts_event) for o in hearer.outcomes}
    columns = (dataset.label_start, dataset.y, dataset.ret, dataset.label_end)
    for start, y, ret, end in zip(*(column.tolist() for column in columns), strict=True):
        assert outcomes[str(start)] == (y, ret, end)
    assert len(dataset) > 500
    ended = [o for o in hearer.outcomes if o.barrier == "signal"]
    assert len(ended) > 200
    assert {o.barrier for o in hearer.outcomes} == {"profit", "stop", "vertical", "signal"}
    assert {e.signal for e in enriched} == {-1, 0, 1}
    # With the signal itself, at the close that it was given at.
    times = set(given.ts_event.tolist())
    assert all(o.ts_event in times and o.ts_init == o.ts_event for o in ended)
    assert set(outcomes) <= {e.signal_id for e in enriched if e.signal}


@pytest.mark.parametrize("exits", [False, True])
def test_the_ledger_serves_the_very_rows_that_training_builds(market, signals, learned, exits, request):
    from ml4t_actor.ledger import training_rows

    enriched, _, actor = learned
    live, settings = live_part(market).bars, LEARNING
    given = signals[signals.ts_event >= live.ts_event[0]]
    if exits:
        part, given, settings, (enriched, _, actor) = request.getfixturevalue("ended_by_signals")
        live = part.bars
    dataset = build_dataset(live, given, settings=settings, feature_names=NAMES)
    rows = training_rows(
        actor.lifecycle.ledger,
        actor.lifecycle.ledger.actor,
        NAMES,
        since_ns=0,
        until_ns=int(live.ts_event[-1]),
        max_rows=10**6,
    )
    # VPIN needs longer than the features, and a row that no model could judge is not learned from either.
    unjudged = {e.ts_event for e in enriched if e.status not in ("ok", "novel_input", "no_model")}
    kept = ~np.isin(dataset.label_start, list(unjudged))
    assert kept.sum() > (300 if exits else 1_700)
    for name in ("X", "y", "side", "ret", "label_start", "label_end"):
        np.testing.assert_array_equal(getattr(rows, name), getattr(dataset, name)[kept], err_msg=name)


def test_a_model_that_the_market_left_is_retired_and_replaced_after_the_delay(learned):
    enriched, hearer, actor = learned
    retired = hearer.updates[0]
    assert (retired.action, retired.version) == ("retired", "")
    assert retired.trigger in ("accuracy", "calibration", "loss")
    assert retired.champion_log_loss > retired.baseline_log_loss
    promoted = next(u for u in hearer.updates if u.action == "promoted")
    assert promoted.previous_version == ""
    assert promoted.improvement_low > 0.0
    assert promoted.n >= 100
    started = {event["ts"] for event in actor.lifecycle.ledger.events("trigger")}
    assert {u.ts_event - round(DELAY_S * 1e9) for u in hearer.updates} <= started
    serving = {update.ts_event: update.version for update in hearer.updates}
    for e in enriched:
        at = max((ts for ts in serving if ts < e.ts_init), default=None)
        assert e.model_version == (retired.previous_version if at is None else serving[at])
        if e.model_version == "":
            assert (e.status, e.meta_confidence, e.regime_weight) == ("no_model", 0.5, 0.0)

    def agreement(version):
        judged = [o for o in hearer.outcomes if o.model_version == version and o.label >= 0]
        assert len(judged) > 150
        return np.corrcoef([o.meta_confidence for o in judged], [o.label for o in judged])[0, 1]

    assert (
        agreement(promoted.version) > 0.2
    )  # the effect has the other sign than what the first model learned


def test_every_signal_comes_out_once_and_in_order(signals, learned, market):
    enriched, _, _ = learned
    given = signals.ts_event[signals.ts_event >= market.bars.ts_event[N_TRAIN]]
    assert [e.ts_event for e in enriched] == given.tolist()


def test_the_ledger_tells_what_was_published(learned):
    from ml4t_actor.ledger import LedgerReader

    enriched, hearer, actor = learned
    frame = LedgerReader(actor.lifecycle.ledger).signals()
    assert frame["signal_id"].tolist() == [e.signal_id for e in enriched]
    assert frame["confidence"].tolist() == [e.meta_confidence for e in enriched]
    assert frame["model_version"].tolist() == [e.model_version for e in enriched]
    assert frame["label"].notna().sum() == len(hearer.outcomes)
    told = [e["detail"] for e in actor.lifecycle.ledger.events() if e["kind"] != "trigger"]
    assert told == [u.to_dict() for u in hearer.updates]


def learned_bytes(enriched, hearer) -> tuple[list[bytes], list[bytes], list[bytes]]:
    return (
        without_latency(enriched),
        [o.to_bytes() for o in hearer.outcomes],
        [u.to_bytes() for u in hearer.updates],
    )


@pytest.mark.slow
def test_the_same_run_twice_is_identical(market, signals, model_path, learned):
    enriched, hearer, _ = run(live_part(market), signals, model_path)
    assert learned_bytes(enriched, hearer) == learned_bytes(*learned[:2])


@pytest.mark.slow
@pytest.mark.parametrize("cut_bars", [3_900, 6_000])
def test_nothing_sees_the_future(cut_bars, market, signals, model_path, learned):
    cut = int(market.bars.ts_event[N_TRAIN + cut_bars])
    rng = np.random.default_rng(cut_bars)
    later = market.bars.ts_event > cut
    factor = np.where(later, np.exp(np.cumsum(rng.normal(0.0, 0.003, len(later)) * later)), 1.0)
    bars = dataclasses.replace(
        market.bars,
        **{
            name: np.round(getattr(market.bars, name) * factor, 3)
            for name in ("open", "high", "low", "close")
        },
    )
    other_signals = dataclasses.replace(
        signals, signal=np.where(signals.ts_event > cut, -signals.signal, signals.signal).astype(np.int8)
    )
    other, other_hearer, _ = run(live_part(market, bars), other_signals, model_path)

    def before(messages):
        return [m for m in messages if m.ts_init <= cut]

    enriched, hearer, _ = learned
    assert without_latency(before(other)) == without_latency(before(enriched))
    assert before(other_hearer.outcomes) == before(hearer.outcomes)
    assert before(other_hearer.updates) == before(hearer.updates)
    assert len(before(hearer.updates)) > 0
    assert without_latency(other) != without_latency(enriched)


def test_a_backtest_writes_no_file_and_a_later_one_begins_where_it_did(model_path, learned):
    names = sorted(path.name for path in model_path.iterdir())
    assert names == sorted([*ModelStore(model_path).versions(), TRIALS_FILE])  # of the training before it
    assert len(ModelStore(model_path).versions()) == 1


def short(market, n=1_200):
    return dataclasses.replace(market, bars=market.bars[N_TRAIN : N_TRAIN + n])


def test_a_frozen_model_is_watched_but_neither_retrained_nor_swapped(market, signals, model_path):
    enriched, hearer, actor = run(
        short(market), signals, model_path, retrain="off", retrain_interval_bars=10, retrain_min_samples=1
    )
    [version] = ModelStore(model_path).versions()
    assert {e.model_version for e in enriched} == {version}
    assert hearer.updates == []
    assert len(hearer.outcomes) > 200
    assert actor.lifecycle.monitor.n_outcomes > 100
    bundle = ModelStore(model_path).load(version)
    for call in (lambda: actor.hot_swap_model(bundle), actor.rollback, actor.request_retrain):
        with pytest.raises(RuntimeError, match="frozen by `retrain='off'`"):
            call()


class At(Actor):
    """Does something at given bars."""

    def __init__(self, bar_type, actions) -> None:
        super().__init__(ActorConfig(component_id="At"))
        self.bar_type, self.actions, self.n = bar_type, actions, 0

    def on_start(self) -> None:
        self.subscribe_bars(self.bar_type)

    def on_bar(self, bar) -> None:
        self.n += 1
        if self.n in self.actions:
            self.actions[self.n]()


def test_a_user_swaps_and_rolls_back(market, signals, model_path):
    first = ModelStore(model_path).load_latest()
    second = dataclasses.replace(first, version="mine-2")
    hearer = Hearer()
    market = short(market)

    def user(actor: ML4TActor) -> At:
        return At(market.bar_type, {400: lambda: actor.hot_swap_model(second), 800: actor.rollback})

    enriched, actor, _ = run_engine(
        market,
        nautilus_bars(market),
        [hearer, user, emitter(market, signals), "actor"],
        config_of(market, model_path),
    )
    versions = [e.model_version for e in enriched]
    changes = [i for i in range(1, len(versions)) if versions[i] != versions[i - 1]]
    assert [versions[0], *(versions[i] for i in changes)] == [first.version, "mine-2", first.version]
    assert [(u.action, u.version, u.previous_version, u.trigger) for u in hearer.updates] == [
        ("swapped", "mine-2", first.version, "user"),
        ("rolled_back", first.version, "mine-2", "user"),
    ]
    assert {e.status for e in enriched[100:]} == {"ok"}  # features and regimes stayed warm
    with pytest.raises(RuntimeError, match="no earlier model to roll back to"):
        actor.rollback()
    with pytest.raises(ValueError, match="has no version; save it in a ModelStore"):
        actor.hot_swap_model(dataclasses.replace(first, version=""))
    other = dataclasses.replace(
        first,
        version="other",
        settings=msgspec.structs.replace(first.settings, labels=LabelSettings(horizon_bars=7)),
    )
    with pytest.raises(ValueError, match="was trained with `labels`"):
        actor.hot_swap_model(other)
    assert actor.inference.bundle.version == first.version


def test_a_retraining_that_is_asked_for_comes_at_the_next_check(market, signals, model_path):
    hearer = Hearer()
    market = short(market, 2_400)

    def user(actor: ML4TActor) -> At:
        return At(market.bar_type, {2_000: lambda: actor.request_retrain("a new venue fee")})

    run_engine(
        market,
        nautilus_bars(market),
        [hearer, user, emitter(market, signals), "actor"],
        config_of(market, model_path, retrain_min_samples=200),
    )
    [update] = hearer.updates
    assert update.trigger == "manual"
    assert "a new venue fee" in update.reason
    asked = int(market.bars.ts_event[1_999])
    assert asked < update.ts_event <= asked + MINUTE_NS + round(DELAY_S * 1e9)


def test_without_a_model_a_first_one_is_trained(market, signals, tmp_path):
    enriched, hearer, _ = run(
        dataclasses.replace(market, bars=market.bars[:5_000]),
        signals,
        tmp_path / "none",
        retrain_min_samples=800,
    )
    first = hearer.updates[0]
    assert first.trigger == "first_model"
    assert (first.action, first.previous_version) == ("promoted", "")
    after = [e.status for e in enriched if e.ts_init > first.ts_event]
    assert len(after) > 100
    assert after.count("ok") > 0.9 * len(after)
    assert set(after) <= {"ok", "novel_input"}
    assert not (tmp_path / "none").exists()


def test_called_directly_without_an_engine_all_is_the_same_to_the_last_bit(
    market, signals, model_path, learned
):
    enriched, outcomes, updates = [], [], []
    kept = {SignalOutcome: outcomes, ModelUpdate: updates}
    orchestrator = ML4TOrchestrator(
        config_of(market, model_path),
        DirectHost(publish=lambda data: kept[type(data)].append(data)),
    )
    orchestrator.start()
    make = emitter(market, signals).make
    for bar, columns in zip(nautilus_bars(live_part(market)), live_part(market).bars.tuples(), strict=True):
        assert orchestrator.update_bar(market.instrument.id, *columns)
        if (signal := make(bar)) is not None:
            enriched.append(orchestrator.process_signal(signal))
    orchestrator.stop()
    hearer = learned[1]
    assert without_latency(enriched) == without_latency(learned[0])
    assert [o.to_bytes() for o in outcomes] == [o.to_bytes() for o in hearer.outcomes]
    assert [u.to_bytes() for u in updates] == [u.to_bytes() for u in hearer.updates]
    assert {"retired", "promoted"} <= {u.action for u in updates}
    assert orchestrator.inference.counts == learned[2].inference.counts
