"""One backtest: train on the earlier part, trade the later one flat and enriched, and sum up the result."""

from collections import Counter
from pathlib import Path

import numpy as np

from backtests.costs import TradingCosts
from backtests.engine import STARTING_EQUITY, EngineRun, run_engine
from backtests.fates import labelled_signals, signal_fates, unit_risk_of
from backtests.market import Market
from backtests.out_of_sample import out_of_sample
from backtests.training import TRAIN_SHARE, choose_labels, span, train_before, training_loop
from ml4t_actor.messages import EnrichedSignal, Status
from ml4t_actor.report import BacktestResult, TradedRun
from ml4t_actor.settings import ModelSettings, TrainingSettings
from ml4t_actor.training.comparisons import purged_path_skills
from ml4t_actor.training.loop import Progress

DEFAULT_COSTS = TradingCosts()


def run_backtest(
    name: str,
    markets: list[Market],
    primary: str,
    out: Path,
    *,
    estimator: str = "logistic",
    costs: TradingCosts = DEFAULT_COSTS,
    progress: Progress | None = None,
) -> BacktestResult:
    """Train, backtest flat and enriched, and return the result, under the universe's `name`.

    `costs` are those beside the instruments' fees; horizon and cost of the labels follow from them (`choose_labels`).

    The first 60 % of the bars train; the engine sees only the later ones, so that features warm up out of sample and
    no label of the training part reaches past the split.
    """
    report = progress or (lambda _what, _share: None)
    model_path = out / "models" / f"{name}-{primary}"
    first, split, last = span(markets, TRAIN_SHARE)
    settings = TrainingSettings(labels=choose_labels(split, markets, primary, costs), model=_model(estimator))
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
    given, enriched = runs["enriched"].signals, runs["enriched"].enriched
    labelled = labelled_signals(markets, given, settings, split)
    test = out_of_sample(labelled, enriched, training, settings)
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
        signals=len(given),
        statuses=dict(Counter(str(e.status) for e in enriched)),
        latency_ns=np.array([e.latency_ns for e in enriched], dtype=np.int64),
        ts=np.array([e.ts_event for e in answered], dtype=np.int64),
        confidence=np.array([e.meta_confidence for e in answered]),
        toxicity=np.array([e.toxicity for e in answered]),
        regime_weight=np.array([e.regime_weight for e in answered]),
        regime=np.array([e.regime for e in answered], dtype=np.int64),
        break_even=_median_break_even(answered),
        model_version=training.bundle.version,
        model_kind=settings.model.estimator,
        feature_importance=training.feature_importance,
        fold_aucs=tuple(fold.auc for fold in training.folds),
        validation=training.scores,
        test=None if test is None else test[0],
        selection=None if test is None else test[1],
        path_skills=paths,
        trials=training.trials,
        fates=signal_fates(
            given,
            enriched,
            runs["enriched"].decided,
            labelled,
            cost=settings.labels.cost,
            unit_risk=unit_risk_of(len(markets), settings, training.bundle.bar_interval_ns),
            filter_volatility=float(np.nanmedian(training.dataset.volatility)),
        ),
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


def _median_break_even(answered: list[EnrichedSignal]) -> float:
    """Return the middle one of the break-even probabilities that were told of these signals."""
    return float(np.median([e.break_even for e in answered])) if answered else 1.0


def _model(estimator: str) -> ModelSettings:
    return ModelSettings(estimator=estimator)  # type: ignore[arg-type]  # checked by the settings themselves
