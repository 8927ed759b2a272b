"""Training: labelled, validated walk-forward without leakage, and packed into a bundle."""

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version as library_version

import numpy as np

from ml4t_actor.indicators.features import DEFAULT_FEATURE_NAMES, FeatureFactory, check_feature_names
from ml4t_actor.indicators.regime import RegimeModel
from ml4t_actor.labeling.dataset import Dataset, build_dataset, pool
from ml4t_actor.labeling.rows import LabelledRows
from ml4t_actor.market_data import DAY_NS, FloatArray, IntArray
from ml4t_actor.meta_model.estimator import MetaModel
from ml4t_actor.monitoring.baseline import MonitorBaseline
from ml4t_actor.registry import ModelBundle, ModelStore, Provenance
from ml4t_actor.settings import MonitorSettings, TrainingSettings
from ml4t_actor.validation import (
    Scores,
    auc_within_side,
    block_length,
    evaluate,
    log_loss,
    walk_forward_splits,
)

Progress = Callable[[str, float], None]

_NOVELTY_MARGIN = 0.25  # of the range seen in training, on either side
_DEFAULT_SETTINGS = TrainingSettings()
_DEFAULT_MONITOR = MonitorSettings()


@dataclass(frozen=True, slots=True)
class FoldResult:
    """One step of the walk-forward validation.

    Attributes
    ----------
    n_train, n_test : int
        Rows after purge and embargo, and rows tested.
    test_start, test_end : int
        First and last signal of the test rows, UNIX nanoseconds.
    base_rate_train, base_rate_test : float
        Share of signals that paid; the former is the baseline forecast.
    auc, log_loss, log_loss_baseline : float
        AUC within side, and log loss beside that of the constant training base rate.
    note : str
        Empty, or why no model could be fitted here; the baseline then stands in for it.
    """

    n_train: int
    n_test: int
    test_start: int
    test_end: int
    base_rate_train: float
    base_rate_test: float
    auc: float
    log_loss: float
    log_loss_baseline: float
    note: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class TrainingResult:
    """What a training run gives: a bundle, and how far to believe in it.

    Attributes
    ----------
    bundle : ModelBundle
        Fitted on all rows; stored if the loop has a store.
    scores : Scores
        Of the out-of-fold predictions, with baselines and intervals.
    folds : tuple of FoldResult
        One per walk-forward step.
    feature_importance : dict
        Share of each feature, summing to one, largest first.
    baselines : dict
        ``majority_accuracy``, ``auc`` (0.5), ``log_loss`` and ``brier`` of the constant training base rate.
    out_of_fold : float64 (n_tested,)
        Predicted probabilities; `out_of_fold_rows` are the rows of `dataset` that they belong to.
    dataset : LabelledRows
        What was learned from; a `Dataset` where it was made from bars.
    """

    bundle: ModelBundle
    scores: Scores
    folds: tuple[FoldResult, ...]
    feature_importance: dict[str, float]
    baselines: dict[str, float]
    out_of_fold: FloatArray
    out_of_fold_rows: IntArray
    dataset: LabelledRows

    @property
    def accuracy(self) -> float:
        """Out-of-fold accuracy; compare with ``baselines["majority_accuracy"]``."""
        return self.scores.accuracy

    @property
    def auc(self) -> float:
        """Out-of-fold AUC within side (chance: 0.5)."""
        return self.scores.auc_within_side


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
    ) -> None:
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
        datasets = []
        for i, (name, instrument_bars) in enumerate(by_instrument.items()):
            own_labels = _of(labels, name)
            try:
                datasets.append(
                    build_dataset(
                        instrument_bars,
                        _of(signals, name),
                        None if own_labels is None else np.asarray(own_labels),
                        _of(trades, name),
                        settings=self.settings,
                        feature_names=self.feature_names,
                        custom=self.custom_features,
                    )
                )
            except ValueError as e:
                if not name:
                    raise
                raise ValueError(f"{name}: {e}") from e
            self._progress("labelling and computing features", 0.2 * (i + 1) / len(by_instrument))
        return self.train_dataset(pool(datasets), instruments=tuple(name for name in by_instrument if name))

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
                    self._weights(rows)[known],
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
        p, baseline, tested, fold, folds = self._walk_forward(rows, interval_ns)
        self._progress("scoring out-of-fold predictions", 0.8)
        weights = self._weights(rows)[tested]
        scores = evaluate(
            rows.y[tested],
            p,
            rows.side[tested],
            baseline,
            weight=weights,
            fold=fold,
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
        low, high = _seen_range(rows.X)
        expected = MonitorBaseline.measure(
            rows.y[tested], p, weights, rows.X, self.feature_names, self.monitor.window
        )
        bundle = ModelBundle(
            feature_names=self.feature_names,
            bar_interval_ns=interval_ns,
            model=model.serving,
            regime=regime,
            settings=self.settings,
            break_even=_break_even(rows, self.settings),
            feature_low=low,
            feature_high=high,
            metrics={
                "out_of_fold": scores.to_dict(),
                "feature_importance": importance,
                "monitor": expected.to_dict(),
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
            out_of_fold_rows=tested,
            dataset=rows,
        )

    def _weights(self, dataset: LabelledRows) -> FloatArray:
        return dataset.weight if self.settings.model.uniqueness_weights else np.ones(len(dataset))

    def fit(self, dataset: LabelledRows, rows: IntArray) -> MetaModel:
        """Return a model fitted on some of the rows, in order, without validating it."""
        weight = self._weights(dataset)[rows]
        if self.age_halflife_days is not None:
            # From the newest row of this very fit, so that the folds weigh theirs as the final fit does.
            age_days = (dataset.label_start[rows[-1]] - dataset.label_start[rows]) / DAY_NS
            weight = weight * 0.5 ** (age_days / self.age_halflife_days)
        return MetaModel(self.settings.model).fit(
            dataset.X[rows],
            dataset.y[rows],
            weight,
            label_start=dataset.label_start[rows],
            label_end=dataset.label_end[rows],
            prior=None if np.isnan(dataset.prior).any() else dataset.prior[rows],
        )

    def _walk_forward(
        self, dataset: LabelledRows, interval_ns: int
    ) -> tuple[FloatArray, FloatArray, IntArray, IntArray, tuple[FoldResult, ...]]:
        embargo_ns = self.settings.validation.embargo_bars * interval_ns
        splits = walk_forward_splits(
            dataset.label_start, dataset.label_end, self.settings.validation, embargo_ns
        )
        weights = self._weights(dataset)
        predictions, baselines, folds = [], [], []
        for i, split in enumerate(splits):
            self._progress(f"validating, fold {i + 1} of {len(splits)}", 0.2 + 0.6 * i / len(splits))
            train, test = split.train, split.test
            rate = float(np.average(dataset.y[train], weights=weights[train]))
            baseline = np.full(len(test), rate)
            note = ""
            try:
                p = self.fit(dataset, train).predict_proba(dataset.X[test])
            except ValueError as e:
                p, note = baseline.copy(), str(e)
            y, side, w = dataset.y[test], dataset.side[test], weights[test]
            folds.append(
                FoldResult(
                    n_train=len(train),
                    n_test=len(test),
                    test_start=int(dataset.label_start[test[0]]),
                    test_end=int(dataset.label_start[test[-1]]),
                    base_rate_train=rate,
                    base_rate_test=float(np.average(y, weights=w)),
                    auc=auc_within_side(y, p, side, w).within,
                    log_loss=log_loss(y, p, w),
                    log_loss_baseline=log_loss(y, baseline, w),
                    note=note,
                )
            )
            predictions.append(p)
            baselines.append(baseline)
        if all(fold.note for fold in folds):
            raise ValueError(f"no fold could be fitted; the last said: {folds[-1].note}")
        rows = np.concatenate([split.test for split in splits])
        fold = np.repeat(np.arange(len(splits)), [len(split.test) for split in splits])
        return np.concatenate(predictions), np.concatenate(baselines), rows, fold, tuple(folds)

    def _fit_regime(self, dataset: Dataset) -> tuple[RegimeModel, FloatArray]:
        """Fit regimes on all bars; return the model and each row's filtered probabilities."""
        model = RegimeModel.fit(np.concatenate(dataset.regime_inputs), self.settings.regime)
        filtered = [model.filter(inputs) for inputs in dataset.regime_inputs]
        at_signals = np.array([filtered[i][bar] for i, bar in dataset.regime_rows])
        model = model.with_weights(
            at_signals, dataset.y, self._weights(dataset), self.settings.regime.shrinkage
        )
        return model, at_signals


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


def _break_even(dataset: LabelledRows, settings: TrainingSettings) -> float:
    """Return the success rate at which the average win pays for the average loss, after costs."""
    net = dataset.ret - settings.labels.cost
    if np.isnan(net).any():  # the user's own labels: nothing is known but the barriers
        labels = settings.labels
        return labels.stop_barrier / (labels.stop_barrier + labels.profit_barrier)
    # By what was earned rather than by `y`, which may be something else: shuffled labels, say.
    won = net > 0.0
    if won.all() or not won.any():
        return 0.01 if won.all() else 0.99
    win = float(np.average(net[won], weights=dataset.weight[won]))
    loss = -float(np.average(net[~won], weights=dataset.weight[~won]))
    return float(np.clip(loss / (win + loss), 0.01, 0.99))
