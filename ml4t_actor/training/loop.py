"""Training: labelled, validated walk-forward without leakage, and packed into a bundle."""

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version as library_version

import msgspec
import numpy as np

from ml4t_actor.indicators.features import DEFAULT_FEATURE_NAMES, FeatureFactory, check_feature_names
from ml4t_actor.indicators.regime import RegimeModel
from ml4t_actor.labeling.dataset import Dataset, pool
from ml4t_actor.labeling.odds import exit_times_of, fit_break_even_shift, with_odds
from ml4t_actor.labeling.rows import LabelledRows
from ml4t_actor.market_data import Bars, BoolArray, FloatArray, IntArray, Signals
from ml4t_actor.meta_model.estimator import MetaModel
from ml4t_actor.monitoring.baseline import MonitorBaseline
from ml4t_actor.registry import ModelBundle, ModelStore, Provenance
from ml4t_actor.settings import MonitorSettings, TrainingSettings
from ml4t_actor.training.comparisons import compare_choices, register_training
from ml4t_actor.training.labelling import LabellingTask, label_instruments, named
from ml4t_actor.training.result import FoldResult, TrainingResult
from ml4t_actor.training.walk_forward import Fitting, OutOfFold, walk_forward, with_odds_of_all_or_none
from ml4t_actor.validation import (
    block_length,
    evaluate,
    shrunk_slope,
    walk_forward_splits,
)
from ml4t_actor.validation.scores import SCORING_FLOOR

Progress = Callable[[str, float], None]

_NOVELTY_MARGIN = 0.25  # of the range seen in training, on either side
_TREND_FEATURES = ("trend_strength", "momentum", "flow")  # how their names begin
_DEFAULT_SETTINGS = TrainingSettings()
_DEFAULT_MONITOR = MonitorSettings()


class TrainingLoop:
    """Turns a history of bars and signals into a validated `ModelBundle`.

    Parameters
    ----------
    settings : TrainingSettings, optional
        Labels, VPIN, regimes, model and validation.
    feature_names : sequence of str, optional
        What the model is shown, in order.
    custom_features : mapping of str to type, optional
        Users' own features, by name.
    store : ModelStore, optional
        Where the bundle is saved; without one it is only returned.
    progress : callable, optional
        Called with what is being done and the share done so far, in [0, 1].
    age_halflife_days : float, optional
        Age at which a row weighs half of what the newest does. By default age does not matter.
    monitor : MonitorSettings, optional
        How the model will be watched once it serves: limits of feature drift are measured for windows of its `window`.
    parallel : str, default 'loky'
        Joblib's backend for the folds and for several instruments, see `fan_out`.
    n_jobs : int, optional
        Most workers; results do not depend on it. By default processes are started only where there is enough to do for
        them, and then one per CPU.
    """

    def __init__(
        self,
        settings: TrainingSettings = _DEFAULT_SETTINGS,
        *,
        feature_names: Sequence[str] = DEFAULT_FEATURE_NAMES,
        custom_features: Mapping[str, FeatureFactory] | None = None,
        store: ModelStore | None = None,
        progress: Progress | None = None,
        age_halflife_days: float | None = None,
        monitor: MonitorSettings = _DEFAULT_MONITOR,
        parallel: str = "loky",
        n_jobs: int | None = None,
    ) -> None:
        self.parallel = parallel
        self.n_jobs = n_jobs
        self.age_halflife_days = age_halflife_days
        self.monitor = monitor
        self.settings = settings
        self.custom_features = dict(custom_features or {})
        self.feature_names = check_feature_names(feature_names, self.custom_features)
        self.store = store
        self._progress = progress or (lambda _what, _share: None)

    def train(
        self, bars: object, signals: object = None, labels: object = None, trades: object = None
    ) -> TrainingResult:
        """Label, validate and fit.

        Parameters
        ----------
        bars : see `Bars.coerce`, or mapping of instrument to that
            At least 1,000 bars per instrument, in order of time. Several instruments are pooled into one model; then
            `signals`, `labels` and `trades`, where given, are mappings with the same keys.
        signals : see `Signals.coerce`, optional
            The primary strategy's signals. By default the model learns from CUSUM events (`cusum_signals`).
        labels : (n_signals,), optional
            The user's own labels instead of the triple barrier's: 0 or 1, NaN or -1 for none.
        trades : see `Trades.coerce`, optional
            Feed VPIN and taker flow in place of the bars.

        Returns
        -------
        TrainingResult

        Raises
        ------
        ValueError
            If there are fewer than 1,000 bars, no usable signals, labels of one class only or of another length, or
            input that is not in order of time.
        """
        self._progress("labelling and computing features", 0.0)
        by_instrument = _by_instrument(bars)
        for source, what in ((signals, "signals"), (labels, "labels"), (trades, "trades")):
            _check_keys(source, by_instrument, what)
        tasks = []
        for name, instrument_bars in by_instrument.items():
            own_labels, own_signals = _of(labels, name), _of(signals, name)
            with named(name):
                tasks.append(
                    LabellingTask(
                        name=name,
                        bars=Bars.coerce(instrument_bars),
                        signals=None if own_signals is None else Signals.coerce(own_signals),
                        labels=None if own_labels is None else np.asarray(own_labels),
                        trades=_of(trades, name),
                        settings=self.settings,
                        feature_names=self.feature_names,
                        custom_features=self.custom_features,
                    )
                )
        datasets = label_instruments(
            tasks,
            parallel=self.parallel,
            n_jobs=self.n_jobs,
            progress=lambda done, total: self._progress(
                "labelling and computing features", 0.2 * done / total
            ),
        )
        result = self.train_dataset(pool(datasets), instruments=tuple(name for name in by_instrument if name))
        if self.store is None:
            return result
        configuration = {
            "settings": msgspec.to_builtins(self.settings),
            "features": self.feature_names,
            "custom_features": sorted(self.custom_features),
            "age_halflife_days": self.age_halflife_days,
            "own_labels": labels is not None,
            "trades": trades is not None,
        }
        given = [given for task in tasks for given in (task.bars, task.signals) if given is not None]
        return replace(result, trials=register_training(self.store.root, given, configuration, result))

    def train_dataset(self, dataset: Dataset, instruments: Sequence[str] = ()) -> TrainingResult:
        """Validate and fit on signals that are already labelled, and fit regimes on their bars.

        Raises
        ------
        ValueError
            If no row is left, all have one label, or there are too few for the folds.
        """
        _check_classes(dataset, f"the {dataset.n_signals:,} signals", dataset.dropped)
        regime, probabilities = self._fit_regime(dataset)
        return self._train(
            dataset.replace(regime=probabilities),
            regime,
            dataset.interval_ns,
            Provenance(
                instruments=list(instruments),
                bars=dataset.n_bars,
                signals=dataset.n_signals,
                dropped=dataset.dropped,
            ),
        )

    def train_rows(
        self,
        rows: LabelledRows,
        regime: RegimeModel | None,
        *,
        interval_ns: int,
        provenance: Provenance | Mapping[str, object] | None = None,
    ) -> TrainingResult:
        """Validate and fit on rows without their bars, as a retraining has them: regimes keep their shape.

        Parameters
        ----------
        rows : LabelledRows
            What to learn from. Rows with a NaN in `regime` do not take part in weighing the regimes.
        regime : RegimeModel or None
            Whose weights are learned anew from the rows; they stay where no row knows its regimes.
        interval_ns : int
            Bar length.
        provenance : Provenance or mapping, optional
            What else the bundle shall say of its origin.

        Raises
        ------
        TypeError
            If `provenance` holds what JSON cannot.
        ValueError
            If there is no row, all have one label, there are too few for the folds, or an entry of `provenance` is of
            another type than `Provenance` gives it.
        """
        origin = Provenance.from_dict(provenance or {})  # refused before anything is fitted
        _check_classes(rows, "the rows", {})
        if regime is not None:
            known = np.isfinite(rows.regime).all(axis=1)
            if known.any():
                regime = regime.with_weights(
                    rows.regime[known],
                    rows.y[known],
                    self._fitting().weights(rows[known]),
                    self.settings.regime.shrinkage,
                )
        return self._train(rows, regime, interval_ns, origin)

    def _train(
        self,
        rows: LabelledRows,
        regime: RegimeModel | None,
        interval_ns: int,
        provenance: Provenance,
    ) -> TrainingResult:
        exit_times = exit_times_of(rows.exit_time)
        rows = with_odds(rows, self.settings.labels, exit_times)
        p, base_odds, baseline, break_even, learned, gross, tested, fold, folds = self._walk_forward(
            rows, interval_ns
        )
        volatility = rows.volatility[tested]
        self._progress("scoring out-of-fold predictions", 0.8)
        scored = np.maximum(p, SCORING_FLOOR)
        scores = evaluate(
            rows.y[tested],
            scored,
            rows.side[tested],
            baseline,
            base_odds=None if np.isnan(rows.odds).any() else base_odds,
            fold=fold,
            windows=(rows.label_start[tested], rows.label_end[tested]),
            returns=(learned, rows.ret[tested] / np.where(volatility > 0.0, volatility, np.nan)),
            block=block_length(rows.label_start[tested], rows.label_end[tested]),
            settings=self.settings.validation,
        )
        self._progress("fitting the model on all rows", 0.9)
        model = self.fit(rows, np.arange(len(rows)))
        importance = dict(
            sorted(
                zip(self.feature_names, (float(v) for v in model.feature_importances), strict=True),
                key=lambda item: -item[1],
            )
        )
        selection = compare_choices(
            rows[tested], p, break_even, self.settings.labels.cost, self.settings.validation, fold
        )
        low, high = _seen_range(rows.X)
        expected = MonitorBaseline.measure(
            rows.y[tested], scored, None, rows.X, self.feature_names, self.monitor.window
        )
        bundle = ModelBundle(
            feature_names=self.feature_names,
            bar_interval_ns=interval_ns,
            model=model.serving,
            regime=regime,
            settings=self.settings,
            feature_low=low,
            feature_high=high,
            exit_times=exit_times,
            break_even_shift=fit_break_even_shift(rows, self.settings.labels, exit_times),
            return_slope=shrunk_slope(scores.return_slope, scores.return_slope_error),
            metrics={
                "out_of_fold": scores.to_dict(),
                "feature_importance": importance,
                "monitor": expected.to_dict(),
                "selection": None if selection is None else msgspec.to_builtins(selection),
            },
            provenance=Provenance(
                rows=len(rows),
                first_signal_ns=int(rows.label_start[0]),
                last_signal_ns=int(rows.label_start[-1]),
                last_label_end_ns=int(rows.label_end.max()),
                python=platform.python_version(),
                scikit_learn=library_version("scikit-learn"),
            )
            | provenance,
            estimator=model,
            history=rows[:],
        )
        if self.store is not None:
            bundle = self.store.save(bundle)
        self._progress("done", 1.0)
        return TrainingResult(
            bundle=bundle,
            scores=scores,
            folds=folds,
            feature_importance=importance,
            baselines={
                "majority_accuracy": scores.majority_accuracy,
                "auc": 0.5,
                "log_loss": scores.log_loss_baseline,
                "brier": scores.brier_baseline,
            },
            out_of_fold=p,
            base_odds=base_odds,
            expected_return=1e4 * (volatility * gross - self.settings.labels.cost),
            out_of_fold_rows=tested,
            dataset=rows,
            selection=selection,
        )

    def fit(self, dataset: LabelledRows, rows: IntArray) -> MetaModel:
        """Return a model fitted on some of the rows, in order, without validating it."""
        return self._fitting().fit(with_odds_of_all_or_none(dataset)[rows])

    def _fitting(self) -> Fitting:
        return Fitting(
            settings=self.settings.model,
            labels=self.settings.labels,
            trend=_trend_features(self.feature_names),
            age_halflife_days=self.age_halflife_days,
        )

    def _walk_forward(self, rows: LabelledRows, interval_ns: int) -> OutOfFold:
        embargo_ns = self.settings.validation.embargo_bars * interval_ns
        return walk_forward(
            self._fitting(),
            rows,
            walk_forward_splits(rows.label_start, rows.label_end, self.settings.validation, embargo_ns),
            parallel=self.parallel,
            n_jobs=self.n_jobs,
            progress=lambda done, total: self._progress(
                f"validating, fold {done} of {total}", 0.2 + 0.6 * done / total
            ),
        )

    def _fit_regime(self, dataset: Dataset) -> tuple[RegimeModel, FloatArray]:
        """Fit regimes on all bars; return the model and each row's filtered probabilities."""
        model = RegimeModel.fit(np.concatenate(dataset.regime_inputs), self.settings.regime)
        filtered = [model.filter(inputs) for inputs in dataset.regime_inputs]
        at_signals = np.array([filtered[i][bar] for i, bar in dataset.regime_rows])
        model = model.with_weights(
            at_signals, dataset.y, self._fitting().weights(dataset), self.settings.regime.shrinkage
        )
        return model, at_signals


def _trend_features(names: Sequence[str]) -> BoolArray:
    """Return which features tell of trend and flow: their effects may be of another size than the others'."""
    return np.array([name.startswith(_TREND_FEATURES) for name in names])


def _by_instrument(bars: object) -> dict[str, object]:
    if isinstance(bars, Mapping) and "ts_event" not in bars:
        if not bars:
            raise ValueError("`bars` is an empty mapping; give the bars of at least one instrument")
        return {str(name): value for name, value in bars.items()}
    return {"": bars}


def _check_keys(source: object, by_instrument: Mapping[str, object], what: str) -> None:
    if source is None or "" in by_instrument:
        return
    keys = {str(key) for key in source} if isinstance(source, Mapping) else None
    if keys != set(by_instrument):
        actual = type(source).__name__ if keys is None else f"a mapping with {sorted(keys)}"
        raise ValueError(
            f"`{what}` must be a mapping with the same keys as `bars`, {sorted(by_instrument)}; it was {actual}"
        )


def _of(source: object, name: str) -> object:
    """Return what `source` holds for one instrument: all of it where instruments have no names."""
    if not name or not isinstance(source, Mapping):
        return source
    return next(value for key, value in source.items() if str(key) == name)


def _check_classes(dataset: LabelledRows, what: str, dropped: Mapping[str, int]) -> None:
    if len(dataset) == 0:
        raise ValueError(f"none of {what} became a labelled row; left out: {dict(dropped)}")
    paid = int(dataset.y.sum())
    if paid in (0, len(dataset)):
        raise ValueError(
            f"all {len(dataset):,} labels are {int(dataset.y[0])}: there is nothing to tell apart; "
            "check the costs and barriers, or give signals of both outcomes"
        )


def _seen_range(X: FloatArray) -> tuple[FloatArray, FloatArray]:
    low, high = X.min(axis=0), X.max(axis=0)
    margin = _NOVELTY_MARGIN * (high - low)
    # A column that never varied cannot have been learned from, so no value of it is novel.
    constant = low == high
    return np.where(constant, -np.inf, low - margin), np.where(constant, np.inf, high + margin)


__all__ = ["FoldResult", "Progress", "TrainingLoop", "TrainingResult"]
