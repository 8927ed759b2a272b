"""One backtest: train on the earlier part, trade the later one flat and enriched, and sum up the result."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import msgspec
import numpy as np
from nautilus_trader.backtest.config import BacktestEngineConfig
from nautilus_trader.backtest.engine import BacktestEngine
from nautilus_trader.common.actor import Actor
from nautilus_trader.common.component import TimeEvent
from nautilus_trader.common.config import ActorConfig, ImportableActorConfig
from nautilus_trader.config import LoggingConfig
from nautilus_trader.core.data import Data
from nautilus_trader.model.enums import AccountType, OmsType
from nautilus_trader.model.events import OrderFilled
from nautilus_trader.model.identifiers import TraderId
from nautilus_trader.model.instruments import CryptoPerpetual
from nautilus_trader.model.objects import Money
from nautilus_trader.trading.config import ImportableStrategyConfig

from backtests.costs import TradingCosts
from backtests.funding import Funding
from backtests.market import Market, nautilus_bars
from backtests.primaries import MeanReverter, Primary, TrendFollower, batch_signals
from ml4t_actor.actor import ML4TActor
from ml4t_actor.indicators.features import META_FEATURE_NAMES
from ml4t_actor.labeling.dataset import build_dataset
from ml4t_actor.labeling.rows import LabelledRows, join_rows
from ml4t_actor.ledger import Ledger
from ml4t_actor.market_data import Signals
from ml4t_actor.messages import EnrichedSignal, Status
from ml4t_actor.registry import ModelStore
from ml4t_actor.report import BacktestResult, TradedRun
from ml4t_actor.settings import LabelSettings, ModelSettings, TrainingSettings
from ml4t_actor.strategy.sizing import break_even_probability
from ml4t_actor.training.comparisons import compare_choices, purged_path_skills
from ml4t_actor.training.loop import Progress, TrainingLoop
from ml4t_actor.training.result import TrainingResult
from ml4t_actor.validation import Scores, Selection, block_length, evaluate

STARTING_EQUITY = 100_000.0
FLAT_FRACTION = 0.25
TRAIN_SHARE = 0.6
PRIMARIES: dict[str, Callable[[], Primary]] = {"trend": TrendFollower, "mean_reversion": MeanReverter}


@dataclass(frozen=True, slots=True)
class EngineRun:
    """What one run of the engine left behind."""

    enriched: list[EnrichedSignal]
    signals: int
    equity_ts: np.ndarray
    equity: np.ndarray
    trades: int
    fees: float
    funding: float
    counts: Counter[str]
    ledger: Ledger


class Recorder(Actor):  # type: ignore[misc]  # Nautilus's compiled base has no stubs
    """Keeps every enriched signal, and the equity once a day."""

    def __init__(self, config: ActorConfig | None = None) -> None:
        super().__init__(config)
        self.enriched: list[EnrichedSignal] = []
        self.signals = 0
        self.equity: list[tuple[int, float]] = []

    def on_start(self) -> None:
        self.msgbus.subscribe(topic="data.SignalData*", handler=self._count)
        self.msgbus.subscribe(topic="data.EnrichedSignal*", handler=self._keep)
        self.clock.set_timer("equity", interval=timedelta(days=1), callback=self._sample)

    def on_stop(self) -> None:
        pass  # subscriptions end with the engine; Nautilus warns where the method is missing

    def _count(self, _data: Data) -> None:
        self.signals += 1

    def _keep(self, data: Data) -> None:
        if isinstance(data, EnrichedSignal):
            self.enriched.append(data)

    def _sample(self, event: TimeEvent) -> None:
        self.equity.append((event.ts_event, self.now()))

    def now(self) -> float:
        """Return balances plus open profit, marked at the last bars."""
        equity = 0.0
        for account in self.cache.accounts():
            equity += sum(balance.total.as_double() for balance in account.balances().values())
        for position in self.cache.positions_open():
            instrument = self.cache.instrument(position.instrument_id)
            for bar_type in self.cache.bar_types(instrument_id=position.instrument_id):
                close = self.cache.bar(bar_type).close
                equity += position.unrealized_pnl(instrument.make_price(close)).as_double()
        return equity


NO_COSTS = TradingCosts.none()
FROZEN = {"retrain": "off"}  # the result of one model is of that model alone


def actor_config(
    markets: list[Market], settings: TrainingSettings, model_path: Path, learning: Mapping[str, object]
) -> ImportableActorConfig:
    """Return the enriching actor as a configuration by path, as it would stand in a JSON file."""
    return ImportableActorConfig(
        actor_path="ml4t_actor.actor:ML4TActor",
        config_path="ml4t_actor.config:ML4TActorConfig",
        config={
            "model_path": str(model_path),
            "feature_names": list(META_FEATURE_NAMES),
            "bar_types": [str(market.bar_type) for market in markets],
            "labels": msgspec.to_builtins(settings.labels),
            "vpin": msgspec.to_builtins(settings.vpin),
            "volatility_halflife_bars": settings.volatility_halflife_bars,
            **learning,
        },
    )


def run_engine(
    markets: list[Market],
    primary: str,
    settings: TrainingSettings,
    model_path: Path,
    *,
    sizing: str | None,
    start: int | None = None,
    end: int | None = None,
    learning: Mapping[str, object] = FROZEN,
    costs: TradingCosts = NO_COSTS,
    log_level: str = "ERROR",
) -> EngineRun:
    """Run primary, actor and strategy over the markets' bars from `start` to `end` (UNIX nanoseconds).

    Without a `sizing` nothing trades. `learning` is added to the actor's configuration. `costs` are those beside the
    instruments' fees.
    """
    bar_types = [str(market.bar_type) for market in markets]
    engine = BacktestEngine(
        BacktestEngineConfig(
            trader_id=TraderId("BACKTESTER-001"),
            logging=LoggingConfig(log_level=log_level),
            run_analysis=False,
            actors=[
                ImportableActorConfig(
                    actor_path="backtests.primaries:PrimaryActor",
                    config_path="backtests.primaries:PrimaryConfig",
                    config={
                        "bar_types": bar_types,
                        "primary": f"backtests.primaries:{type(PRIMARIES[primary]()).__name__}",
                    },
                ),
                actor_config(markets, settings, model_path, learning),
            ],
            strategies=[] if sizing is None else [_strategy(bar_types, settings, sizing)],
        )
    )
    recorder = Recorder()
    engine.add_actor(recorder)
    fundings: list[Funding] = []
    for venue in {market.instrument.id.venue for market in markets}:
        instrument = next(m.instrument for m in markets if m.instrument.id.venue == venue)
        currency = getattr(instrument, "settlement_currency", instrument.quote_currency)
        modules = (
            [Funding(costs.funding_rate)]
            if costs.funding_rate and isinstance(instrument, CryptoPerpetual)
            else []
        )
        engine.add_venue(
            venue=venue,
            oms_type=OmsType.NETTING,
            account_type=AccountType.MARGIN,
            base_currency=None,
            starting_balances=[Money(STARTING_EQUITY, currency)],
            modules=modules,
        )
        fundings += modules
    for market in markets:
        engine.add_instrument(market.instrument)
    for market in markets:
        engine.add_data(nautilus_bars(market, start, end), sort=False)
    engine.sort_data()
    engine.run()
    samples = [*recorder.equity, (engine.kernel.clock.timestamp_ns(), recorder.now())]
    fills = [
        event for order in engine.cache.orders() for event in order.events if isinstance(event, OrderFilled)
    ]
    run = EngineRun(
        enriched=recorder.enriched,
        signals=recorder.signals,
        equity_ts=np.array([ts for ts, _ in samples], dtype=np.int64),
        equity=np.array([value for _, value in samples]),
        trades=len(engine.trader.generate_positions_report()),
        fees=sum(fill.commission.as_double() for fill in fills),
        funding=sum(each.paid for each in fundings),
        counts=Counter(engine.trader.strategies()[0].counts) if sizing is not None else Counter(),
        ledger=next(a for a in engine.trader.actors() if isinstance(a, ML4TActor)).lifecycle.ledger,
    )
    engine.dispose()
    return run


def _strategy(bar_types: list[str], settings: TrainingSettings, sizing: str) -> ImportableStrategyConfig:
    return ImportableStrategyConfig(
        strategy_path="ml4t_actor.strategy:EnrichedSignalStrategy",
        config_path="ml4t_actor.strategy:EnrichedSignalStrategyConfig",
        config={
            "bar_types": bar_types,
            "sizing": sizing,
            "fraction": FLAT_FRACTION if sizing == "flat" else 1.0,
            "labels": msgspec.to_builtins(settings.labels),
            # Each trade a position of its own: with netting, Nautilus re-reads all past snapshots at every close, which
            # takes longer than the whole rest. The venue nets all the same.
            "oms_type": "HEDGING",
        },
    )


def out_of_sample(
    markets: list[Market],
    enriched: list[EnrichedSignal],
    training: TrainingResult,
    settings: TrainingSettings,
    start: int,
) -> tuple[Scores, Selection | None] | None:
    """Label the signals that were enriched with status ok; score their confidences, and what they would choose."""
    parts: list[LabelledRows] = []
    answers: list[tuple[float, float]] = []
    for market in markets:
        own = [e for e in enriched if e.instrument_id == market.instrument.id and e.status == Status.OK]
        bars = market.bars[market.bars.ts_event >= start]
        if not own:
            continue
        signals = Signals(
            np.array([e.ts_event for e in own], dtype=np.int64),
            np.array([e.signal for e in own], dtype=np.int8),
            np.array([e.strength for e in own]),
        )
        labelled = build_dataset(bars, signals, settings=settings, feature_names=("volatility",))
        answer = {e.ts_event: (e.meta_confidence, e.base_odds) for e in own}
        parts.append(labelled)
        answers += [answer[ts] for ts in labelled.label_start.tolist()]
    if sum(map(len, parts)) < 2:
        return None
    order = np.argsort(np.concatenate([part.label_start for part in parts]), kind="stable")  # as `join_rows`
    rows, (p, base_odds) = join_rows(parts), np.array(answers)[order].T
    scores = evaluate(
        rows.y,
        p,
        rows.side,
        np.full(len(rows), float(training.dataset.y.mean())),
        base_odds=base_odds,
        windows=(rows.label_start, rows.label_end),
        block=block_length(rows.label_start, rows.label_end),
        settings=settings.validation,
    )
    return scores, compare_choices(rows, p, settings.labels, settings.validation)


def span(markets: list[Market], train_share: float) -> tuple[int, int, int]:
    """Return the first time that all markets have, where training ends, and the last; UNIX nanoseconds."""
    first = max(int(market.bars.ts_event[0]) for market in markets)
    last = min(int(market.bars.ts_event[-1]) for market in markets)
    return first, first + int(train_share * (last - first)), last


def train_before(
    split: int,
    markets: list[Market],
    primary: str,
    settings: TrainingSettings,
    model_path: Path,
    progress: Progress | None = None,
) -> TrainingResult:
    """Train on the primary's signals over all bars before `split`, and store the bundle in `model_path`."""
    bars = {market.name: market.bars[market.bars.ts_event < split] for market in markets}
    signals = {name: batch_signals(PRIMARIES[primary](), history) for name, history in bars.items()}
    return training_loop(settings, model_path, progress).train(bars, signals)


def training_loop(
    settings: TrainingSettings, model_path: Path, progress: Progress | None = None
) -> TrainingLoop:
    """Return the loop that trains these models, and stores them in `model_path`."""
    return TrainingLoop(
        settings,
        feature_names=META_FEATURE_NAMES,
        store=ModelStore(model_path),
        progress=progress,
        n_jobs=1,  # several backtests may run side by side
    )


def run_backtest(
    name: str,
    markets: list[Market],
    primary: str,
    out: Path,
    *,
    estimator: str = "logistic",
    costs: TradingCosts = NO_COSTS,
    progress: Progress | None = None,
) -> BacktestResult:
    """Train, backtest flat and enriched, and return the result, under the universe's `name`.

    `costs` are those beside the instruments' fees.

    The first 60 % of the bars train; the engine sees only the later ones, so that features warm up out of sample and
    no label of the training part reaches past the split.
    """
    report = progress or (lambda _what, _share: None)
    settings = TrainingSettings(
        labels=LabelSettings(cost=round_trip_cost(markets, costs)), model=_model(estimator)
    )
    model_path = out / "models" / f"{name}-{primary}"
    first, split, last = span(markets, TRAIN_SHARE)
    training = train_before(split, markets, primary, settings, model_path, progress)
    runs: dict[str, EngineRun] = {}
    for sizing in ("flat", "enriched"):
        report(f"backtest, {sizing} size", 0.0)
        runs[sizing] = run_engine(
            markets, primary, settings, model_path, sizing=sizing, start=split, costs=costs
        )
    report("combinatorial purged paths", 0.0)
    embargo_ns = settings.validation.embargo_bars * training.bundle.bar_interval_ns
    paths = purged_path_skills(training_loop(settings, model_path).fit, training.dataset, embargo_ns)
    enriched = runs["enriched"].enriched
    test = out_of_sample(markets, enriched, training, settings, split)
    answered = [e for e in enriched if e.status == Status.OK and e.signal != 0]
    return BacktestResult(
        title=f"{primary.replace('_', ' ')} on {name}",
        data_label=data_label(markets),
        synthetic=any(market.synthetic for market in markets),
        primary=primary,
        instruments=tuple(market.name for market in markets),
        train_start=first,
        train_end=split,
        test_start=split,
        test_end=last,
        costs=settings.labels.cost,
        signals=runs["enriched"].signals,
        statuses=dict(Counter(str(e.status) for e in enriched)),
        latency_ns=np.array([e.latency_ns for e in enriched], dtype=np.int64),
        ts=np.array([e.ts_event for e in answered], dtype=np.int64),
        confidence=np.array([e.meta_confidence for e in answered]),
        toxicity=np.array([e.toxicity for e in answered]),
        regime_weight=np.array([e.regime_weight for e in answered]),
        regime=np.array([e.regime for e in answered], dtype=np.int64),
        break_even=_median_break_even(answered, settings),
        model_version=training.bundle.version,
        model_kind=settings.model.estimator,
        feature_importance=training.feature_importance,
        fold_aucs=tuple(fold.auc for fold in training.folds),
        validation=training.scores,
        test=None if test is None else test[0],
        selection=None if test is None else test[1],
        path_skills=paths,
        trials=training.trials,
        runs=tuple(
            TradedRun(
                name=sizing,
                ts=run.equity_ts,
                equity=run.equity,
                trades=run.trades,
                fees=run.fees,
                starting_equity=STARTING_EQUITY,
                funding=run.funding,
            )
            for sizing, run in runs.items()
        ),
    )


def data_label(markets: list[Market]) -> str:
    """Return the markets' labels in one: what they are (real or SYNTHETIC), how many, and since when."""
    kinds = dict.fromkeys(market.label.split(" of ")[0] for market in markets)
    first, last = (
        str(np.datetime64(bound(int(market.bars.ts_event[i]) for market in markets), "ns"))[:10]
        for bound, i in ((min, 0), (max, -1))
    )
    bars = sum(len(market.bars) for market in markets)
    return f"{'; '.join(kinds)}, {len(markets)} instruments, {first} to {last}, {bars:,} bars"


def _median_break_even(answered: list[EnrichedSignal], settings: TrainingSettings) -> float:
    """Return the middle one of the break-even probabilities that the strategy sized these signals by."""
    labels = settings.labels
    if not answered:
        return labels.stop_barrier / (labels.stop_barrier + labels.profit_barrier)
    return float(
        np.median(
            [
                break_even_probability(labels.profit_barrier, labels.stop_barrier, labels.cost, e.volatility)
                for e in answered
            ]
        )
    )


def _model(estimator: str) -> ModelSettings:
    return ModelSettings(estimator=estimator)  # type: ignore[arg-type]  # checked by the settings themselves


def round_trip_cost(markets: list[Market], costs: TradingCosts = NO_COSTS) -> float:
    """Return what entry and exit cost on average, of the dearest market, as a share of the price.

    Two taker's fees, the spread once, and the slippage of stops by the share of trades that end there.
    """
    fees = 2.0 * max(float(market.instrument.taker_fee) for market in markets)
    return fees + 1e-4 * (costs.spread_bp + costs.stop_share * costs.stop_slippage_bp)
