"""How long 260,000 real 1-minute bars take: labelled, featured, validated walk-forward, trained.

Named baseline: one default `HistGradientBoostingClassifier` fitted once to the same rows.

    python -m benchmarks.training
"""

import time

import numpy as np

from backtests.market import load_markets
from backtests.primaries import MeanReverter, batch_signals
from ml4t_actor.indicators.features import META_FEATURE_NAMES
from ml4t_actor.labeling.dataset import build_dataset
from ml4t_actor.labeling.triple_barrier import triple_barrier_labels
from ml4t_actor.settings import ModelSettings, TrainingSettings
from ml4t_actor.training.loop import TrainingLoop

N_BARS = 260_000
N_EVENTS = 1_000_000
QUICK = 10  # times fewer


def main(*, quick: bool = False) -> None:
    from sklearn.ensemble import HistGradientBoostingClassifier

    fewer = QUICK if quick else 1
    n_events = N_EVENTS // fewer
    market = load_markets("bitfinex_1m")[0]
    bars = market.bars[: N_BARS // fewer]
    print(market.label)
    print(f"{len(bars):,} bars; the first call in a process also loads or compiles kernels")
    settings = TrainingSettings()
    dataset = None
    for name, signals in (
        ("CUSUM events", None),
        ("mean reverter", batch_signals(MeanReverter(), bars)),
    ):
        for attempt in ("first", "again"):
            started = time.perf_counter()
            dataset = build_dataset(bars, signals, settings=settings, feature_names=META_FEATURE_NAMES)
            built = time.perf_counter()
            result = TrainingLoop(settings, feature_names=META_FEATURE_NAMES).train(bars, signals)
            done = time.perf_counter()
            print(
                f"{name}, {attempt}: {len(dataset):,} labelled rows in {built - started:.2f} s; whole training "
                f"{done - built:.2f} s; AUC within side {result.auc:.4f}, {result.scores.verdict}"
            )
        assert dataset is not None
        started = time.perf_counter()
        HistGradientBoostingClassifier(random_state=0).fit(dataset.X, dataset.y)
        baseline = time.perf_counter() - started
        print(
            f"  baseline, one default boosting fit: {baseline:.2f} s; ratio {(done - built) / baseline:.1f}"
        )
    started = time.perf_counter()
    boosted = TrainingSettings(model=ModelSettings(estimator="hist_gradient_boosting"))
    TrainingLoop(boosted, feature_names=META_FEATURE_NAMES).train(bars, batch_signals(MeanReverter(), bars))
    print(f"mean reverter, hist_gradient_boosting: whole training {time.perf_counter() - started:.2f} s")

    rng = np.random.default_rng(0)
    events = np.sort(rng.integers(0, len(bars) - 1, n_events))
    side = rng.choice([-1, 1], n_events)
    volatility = np.full(len(bars), 0.008)
    for horizon in (60, 1_000):
        started = time.perf_counter()
        triple_barrier_labels(
            *(bars.high, bars.low, bars.close, events, side, volatility),
            horizon=horizon,
            pt=1.0,
            sl=1.0,
            cost=0.0009,
        )
        print(f"{n_events:,} events, horizon {horizon}: labelled in {time.perf_counter() - started:.3f} s")


if __name__ == "__main__":
    main()
