"""How long one enrichment takes, and what it adds to a backtest.

Named baselines, in the same run: the same features served by a model of format 1, which knows neither odds nor
interval; scikit-learn's `predict_proba` on one row; and an actor in `BacktestEngine` that republishes each signal
without looking at it.

    python -m benchmarks.enrichment
"""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol, cast

import numpy as np
from nautilus_trader.backtest.config import BacktestEngineConfig
from nautilus_trader.backtest.engine import BacktestEngine
from nautilus_trader.common.actor import Actor
from nautilus_trader.config import ActorConfig, LoggingConfig
from nautilus_trader.core.data import Data
from nautilus_trader.model.data import Bar, DataType
from nautilus_trader.model.enums import AccountType, OmsType
from nautilus_trader.model.identifiers import InstrumentId
from nautilus_trader.model.objects import Money
from numpy.typing import ArrayLike

from backtests.market import Market, load_markets, nautilus_bars
from ml4t_actor.actor import ML4TActor
from ml4t_actor.config import ML4TActorConfig
from ml4t_actor.indicators.features import META_FEATURE_NAMES
from ml4t_actor.inference import InferenceLoop
from ml4t_actor.market_data import FloatArray
from ml4t_actor.messages import EnrichedSignal, SignalData, Status
from ml4t_actor.meta_model.compiled import CompiledModel
from ml4t_actor.registry import ModelBundle, ModelStore
from ml4t_actor.training.loop import TrainingLoop

N_TRAIN, N_RUN, N_RUN_QUICK = 20_000, 40_000, 4_000


class Classifier(Protocol):
    """A fitted model that asks scikit-learn."""

    def predict_proba(self, X: FloatArray, odds: FloatArray, volatility: FloatArray) -> FloatArray:
        """Return the probability of each row."""


class PassThrough(Actor):  # type: ignore[misc]  # Nautilus's compiled base has no stubs
    """Receives signals and bars as the real actor does, and publishes a constant answer."""

    def __init__(self, market: Market) -> None:
        super().__init__(ActorConfig(component_id="PassThrough"))
        self._bar_type = market.bar_type

    def on_start(self) -> None:
        self.msgbus.subscribe(topic="data.SignalData*", handler=self.handle_data)
        self.subscribe_bars(self._bar_type)

    def on_bar(self, bar: Bar) -> None:
        pass

    def on_data(self, data: Data) -> None:
        if isinstance(data, SignalData):
            enriched = EnrichedSignal.from_signal(data, meta_confidence=0.5, status=Status.OK)
            self.publish_data(DataType(EnrichedSignal), enriched)


class EveryBar(Actor):  # type: ignore[misc]  # Nautilus's compiled base has no stubs
    """Gives a signal on every bar."""

    def __init__(self, market: Market) -> None:
        super().__init__(ActorConfig(component_id="EveryBar"))
        self._bar_type = market.bar_type

    def on_start(self) -> None:
        self.subscribe_bars(self._bar_type)

    def on_bar(self, bar: Bar) -> None:
        self.publish_data(DataType(SignalData), signal_at(bar.bar_type.instrument_id, bar.ts_event))


class Sink(Actor):  # type: ignore[misc]  # Nautilus's compiled base has no stubs
    """Keeps the latencies."""

    def __init__(self) -> None:
        super().__init__(ActorConfig(component_id="Sink"))
        self.latency_ns: list[int] = []

    def on_start(self) -> None:
        self.msgbus.subscribe(topic="data.EnrichedSignal*", handler=self._keep)

    def _keep(self, enriched: EnrichedSignal) -> None:
        self.latency_ns.append(enriched.latency_ns)


def signal_at(instrument_id: InstrumentId, ts: int) -> SignalData:
    return SignalData(
        instrument_id=instrument_id,
        signal=1,
        strength=1.0,
        source="b",
        signal_id=str(ts),
        ts_event=ts,
        ts_init=ts,
    )


def report(name: str, ns: list[int]) -> float:
    p50, p99, p999 = np.percentile(ns, [50, 99, 99.9]) / 1e3
    print(f"{name:44} p50 {p50:9.1f}   p99 {p99:9.1f}   p99.9 {p999:9.1f} us")
    return float(p99)


def in_engine(market: Market, actor: Actor, n_run: int) -> tuple[float, list[int]]:
    engine = BacktestEngine(BacktestEngineConfig(logging=LoggingConfig(bypass_logging=True)))
    instrument = market.instrument
    engine.add_venue(
        instrument.id.venue, OmsType.NETTING, AccountType.MARGIN, [Money(1_000, instrument.quote_currency)]
    )
    engine.add_instrument(instrument)
    sink = Sink()
    for component in (EveryBar(market), actor, sink):
        engine.add_actor(component)
    first = int(market.bars.ts_event[N_TRAIN])
    last = int(market.bars.ts_event[N_TRAIN + n_run])
    engine.add_data(nautilus_bars(market, first, last))
    started = time.perf_counter()
    engine.run()
    taken = time.perf_counter() - started
    engine.dispose()
    return taken, sink.latency_ns


def in_format(model: CompiledModel, number: int) -> CompiledModel:
    """Return a logistic model with the same features in that format; what it does not know itself is made up."""
    n = model.n_features
    odds: dict[str, ArrayLike] = {
        "uses_odds": np.bool_(True),
        "odds_center": np.array([-0.3, -6.0]),
        "odds_scale": np.array([0.3, 0.5]),
        "odds_coefficient": np.array([0.02, -0.01]),
        "base_intercept": np.float64(0.05),
        "base_coefficient": np.array([0.02, -0.01]),
        "covariance_factor": 0.05 * np.tril(np.ones((n + 3, n + 3))),
    }
    returns: dict[str, ArrayLike] = {
        "return_intercept": np.float64(0.01),
        "return_mean": np.zeros(n),
        "return_scale": np.ones(n),
        "return_coefficient": np.full(n, 0.01),
    }
    arrays: dict[str, ArrayLike] = {**odds, **returns, **model.to_arrays(), "format": np.int64(number)}
    later = {**(odds if number < 2 else {}), **(returns if number < 3 else {})}
    return CompiledModel.from_arrays({name: array for name, array in arrays.items() if name not in later})


def without_engine(
    market: Market, bundles: list[ModelBundle], n_run: int
) -> list[tuple[list[int], list[int]]]:
    """Return, for each bundle, how long the bars took and the enrichments, all on the same bars in turn."""
    instrument_id = market.instrument.id
    loops = []
    for bundle in bundles:
        loop = InferenceLoop(bundle, feature_names=META_FEATURE_NAMES)
        loop.add_instrument(instrument_id, bundle.bar_interval_ns)
        loop.compile()
        loops.append(loop)
    taken: list[tuple[list[int], list[int]]] = [([], []) for _ in bundles]
    for bar in market.bars[N_TRAIN : N_TRAIN + n_run].tuples():
        for loop, (bars, signals) in zip(loops, taken, strict=True):
            started = time.perf_counter_ns()
            loop.update_bar(instrument_id, *bar)
            bars.append(time.perf_counter_ns() - started)
            enriched = loop.process_signal(signal_at(instrument_id, bar[0]))
            if enriched.is_ok:
                signals.append(enriched.latency_ns)
    return taken


def timed(function: Callable[[], object], times: int) -> list[int]:
    taken = []
    for _ in range(times):
        started = time.perf_counter_ns()
        function()
        taken.append(time.perf_counter_ns() - started)
    return taken


def main(*, quick: bool = False) -> None:
    import tempfile

    n_run = N_RUN_QUICK if quick else N_RUN
    market = load_markets("binance_1m")[0]
    print(market.label)
    with tempfile.TemporaryDirectory() as folder:
        trained = TrainingLoop(feature_names=META_FEATURE_NAMES, store=ModelStore(folder)).train(
            market.bars[:N_TRAIN]
        )
        forms = [
            replace(trained.bundle, model=in_format(trained.bundle.model, number)) for number in (1, 2, 3)
        ]
        (_, plain), (_, no_return), (bars, signals) = without_engine(market, forms, n_run)
        report("step all state by one bar", bars)
        p99 = report("enrich one signal (status ok)", signals)
        for number, taken in ((1, plain), (2, no_return)):
            report(f"the same by a model of format {number}", taken)
            print(f"at the median that is {np.median(signals) / np.median(taken):.2f} of format {number}")
        rows = trained.dataset
        row = rows.X[:1], rows.odds[:1], rows.volatility[:1]
        model = cast(Classifier, trained.bundle.estimator)
        baseline = report(
            "baseline: scikit-learn predict_proba, one row", timed(lambda: model.predict_proba(*row), 2_000)
        )
        print(f"enrichment at p99 is {p99 / baseline:.3f} of the baseline")

        passing, _ = in_engine(market, PassThrough(market), n_run)
        config = ML4TActorConfig(
            model_path=folder,
            bar_types=[str(market.bar_type)],
            feature_names=list(META_FEATURE_NAMES),
            retrain="off",  # `benchmarks.retraining` measures what that costs
        )
        enriching, latency_ns = in_engine(market, ML4TActor(config), n_run)
        report("enrich in BacktestEngine, all statuses", latency_ns)
        print(
            f"backtest of {n_run:,} bars, on each a signal that is followed: {enriching:.2f} s; pass-through actor: "
            f"{passing:.2f} s; ratio {enriching / passing:.2f}, {(enriching - passing) / n_run * 1e6:.1f} us a bar more"
        )


if __name__ == "__main__":
    main()
