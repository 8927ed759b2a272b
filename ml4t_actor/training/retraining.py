"""One retraining, from rows to a challenger and the gate's decision: the same in a child process and in a backtest."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from msgspec import UNSET

from ml4t_actor.labeling.odds import TradeOdds, exit_times_of, with_odds
from ml4t_actor.labeling.rows import LabelledRows, join_rows
from ml4t_actor.ledger import TrainingRows
from ml4t_actor.market_data import DAY_NS, FloatArray
from ml4t_actor.registry import ModelBundle, Provenance
from ml4t_actor.settings import RetrainSettings, TrainingSettings
from ml4t_actor.training.gate import GateDecision, compare_models
from ml4t_actor.validation import block_length
from ml4t_actor.validation.scores import SCORING_FLOOR, log_losses

if TYPE_CHECKING:
    from ml4t_actor.training.loop import TrainingLoop

SLOWEST_HORIZONS = 4  # with bars missing, a label may take longer than its horizon of time
NEWEST_PART = 5  # one in so many rows, the newest, decides which half-life is best
HALFLIFE_SHARES = (1 / 2, 1 / 8, 1 / 32)  # of the time that the rows span

Progress = Callable[[str, float], None]


class RetrainSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What a retraining is to do.

    Attributes
    ----------
    actor : str
        Whose signals in the ledger to learn from.
    training : TrainingSettings
        As the serving model was trained; those of the configuration where none serves.
    retrain : RetrainSettings
        Rows, weights and gate.
    feature_names : tuple of str
        What the challenger is shown.
    interval_ns : int
        Bar length.
    min_samples : int
        Fewest resolved signals that no model has seen.
    now_ns : int
        Nothing that became known later takes part.
    trigger : str
        Kind of what triggered it.
    retired : bool
        Whether the model that is followed serves no more: the challenger is then compared with the base rate.
    """

    actor: str
    training: TrainingSettings
    retrain: RetrainSettings
    feature_names: tuple[str, ...]
    interval_ns: int
    min_samples: int
    now_ns: int
    trigger: str
    retired: bool = False


@dataclass(frozen=True, slots=True)
class RetrainResult:
    """What came of a retraining.

    Attributes
    ----------
    decision : GateDecision or None
        The comparison; None if there was no challenger.
    bundle : ModelBundle or None
        The challenger.
    error : str
        Empty, or why there is none.
    seconds : float
        Wall time.
    dropped : dict
        Rows of the ledger that could not be learned from, by reason.
    """

    decision: GateDecision | None = None
    bundle: ModelBundle | None = None
    error: str = ""
    seconds: float = 0.0
    dropped: dict[str, int] = field(default_factory=dict)


def seen_until_ns(champion: ModelBundle | None) -> int:
    """Return the time up to which labels took part in making or choosing the model: later ones can test it."""
    return 0 if champion is None else champion.provenance.seen_until_ns


def unseen_after_ns(champion: ModelBundle | None) -> int:
    """Return the time after which signals can test the model: an embargo later."""
    if champion is None:
        return 0
    return seen_until_ns(champion) + champion.settings.validation.embargo_bars * champion.bar_interval_ns


def fresh_since_ns(champion: ModelBundle | None) -> int:
    """Return the time after which there are signals that the serving model was not fitted on, see `_joined_rows`."""
    if champion is None:
        return 0
    learned_until_ns = champion.provenance.learned_until_ns
    if learned_until_ns is UNSET:
        return champion.provenance.last_signal_ns or 0
    horizon_ns = champion.settings.labels.horizon_bars * champion.bar_interval_ns
    return max(0, learned_until_ns - SLOWEST_HORIZONS * horizon_ns)


def retrain(
    spec: RetrainSpec,
    champion: ModelBundle | None,
    history: LabelledRows | None,
    fresh: TrainingRows,
    progress: Progress | None = None,
) -> RetrainResult:
    """Train a challenger on all but the latest rows and compare it with the champion on these.

    The signals that took no part in making or choosing the champion are cut in two by time. The later part
    (`holdout_fraction`) is what both are compared on; the challenger learns from everything whose label ended an
    embargo before it. The model that was compared is the one that serves: it is not fitted again on the window.

    Parameters
    ----------
    spec : RetrainSpec
        Settings and times.
    champion : ModelBundle or None
        The model in use, or the last one if it is retired.
    history : LabelledRows or None
        What it was trained on.
    fresh : TrainingRows
        From the ledger, signals after those of `history`.
    progress : callable, optional
        Called with what is being done and the share done so far, in [0, 1].
    """
    from ml4t_actor.training.loop import TrainingLoop

    rows = _joined_rows(spec, champion, history, fresh)
    rows = rows[rows.label_end <= spec.now_ns]  # a ledger that is read a little later may know more
    embargo_ns = spec.training.validation.embargo_bars * spec.interval_ns
    unseen = np.flatnonzero(rows.label_start > unseen_after_ns(champion))
    if len(unseen) < spec.min_samples:
        return RetrainResult(
            error=f"{len(unseen):,} resolved signals that the serving model has not seen, needs {spec.min_samples:,}",
            dropped=fresh.dropped,
        )
    first = unseen[-max(1, round(spec.retrain.gate.holdout_fraction * len(unseen)))]
    window = rows[first:]
    learned_until_ns = int(window.label_start[0]) - embargo_ns
    train = rows[rows.label_end < learned_until_ns][-spec.retrain.max_rows :]
    loop = TrainingLoop(
        spec.training,
        feature_names=spec.feature_names,
        custom_features=dict.fromkeys(spec.feature_names),  # type: ignore[arg-type]  # only their names are read here
        progress=progress,
        age_halflife_days=spec.retrain.age_halflife_days,
        monitor=spec.retrain.monitor,
        n_jobs=1,  # this is a child process already, and is to leave the CPUs to trading
    )
    if spec.retrain.age_halflife_days is None:
        loop.age_halflife_days = best_halflife_days(loop, train, embargo_ns)
    trained = loop.train_rows(
        train,
        None if champion is None else champion.regime,
        interval_ns=spec.interval_ns,
        provenance=Provenance(
            parent="" if champion is None else champion.version,
            trigger=spec.trigger,
            age_halflife_days=loop.age_halflife_days,
            learned_until_ns=learned_until_ns,
            judged_from_ns=int(window.label_start[0]),
            judged_until_ns=int(window.label_end.max()),
            dropped=fresh.dropped,
        ),
    )
    decision = compare_models(
        window.y,
        None if champion is None or spec.retired else _confidence(champion, window),
        _confidence(trained.bundle, window),
        baseline_p=float(train.y.mean()),
        block=block_length(window.label_start, window.label_end),
        settings=spec.retrain.gate,
    )
    bundle = replace(
        trained.bundle, metrics={**trained.bundle.metrics, "gate": msgspec.to_builtins(decision)}
    )
    return RetrainResult(decision=decision, bundle=bundle, dropped=fresh.dropped)


def best_halflife_days(loop: "TrainingLoop", rows: LabelledRows, embargo_ns: int) -> float | None:
    """Return the half-life of age that suits the newest rows best, None if all ages had better count alike.

    Each candidate is fitted on the rows before the newest fifth and scored on that. Forgetting must be worth it: a
    half-life wins over none by more than the standard error of the difference, with as many independent labels as
    their uniqueness adds up to. (The folds of the validation test on some of these rows too, which flatters their
    scores a little; the window of the gate is later than all of them.)

    Parameters
    ----------
    loop : TrainingLoop
        Whose settings to fit with; its own half-life is tried out here and given back as it was.
    rows : LabelledRows
        All rows to train on.
    embargo_ns : int
        Nanoseconds between the last label and the newest fifth.
    """
    first = len(rows) - len(rows) // NEWEST_PART
    if first >= len(rows):
        return None
    newest = rows[first:]
    before = np.flatnonzero(rows.label_end < newest.label_start[0] - embargo_ns)
    span_days = (rows.label_start[-1] - rows.label_start[0]) / DAY_NS
    losses: dict[float | None, FloatArray] = {}
    given = loop.age_halflife_days
    try:
        for candidate in (None, *(span_days * share for share in HALFLIFE_SHARES)):
            loop.age_halflife_days = candidate
            with suppress(ValueError):  # too few rows, or of one class only
                model = loop.fit(rows, before)
                p = model.predict_proba(newest.X, newest.odds, newest.volatility)
                losses[candidate] = log_losses(newest.y.astype(np.float64), np.maximum(p, SCORING_FLOOR))
    finally:
        loop.age_halflife_days = given
    if None not in losses:
        return None
    best, best_gain = None, 0.0
    n_independent = newest.weight.sum() if loop.settings.model.uniqueness_weights else len(newest)
    for candidate, loss in losses.items():
        difference = losses[None] - loss
        gain = float(difference.mean())
        error = float(difference.std() / np.sqrt(n_independent))
        if gain > max(best_gain, error):
            best, best_gain = candidate, gain
    return best


def _confidence(bundle: ModelBundle, rows: LabelledRows) -> FloatArray:
    """Return what the compiled model says of the rows, as it is scored."""
    rows = with_odds(rows, bundle.settings.labels, bundle.exit_times)
    return np.maximum(bundle.model.predict_rows(rows.X, rows.odds, rows.volatility), SCORING_FLOOR)


def _joined_rows(
    spec: RetrainSpec, champion: ModelBundle | None, history: LabelledRows | None, fresh: TrainingRows
) -> LabelledRows:
    """Return history and ledger in one, the latter's regimes only where the champion's own regimes gave them."""
    regime = None if champion is None else champion.regime
    probabilities = np.full((len(fresh), 0 if regime is None else regime.n_regimes), np.nan)
    if regime is not None:
        alike = fresh.regime_model == regime.digest
        n_served = min(regime.n_regimes, fresh.regime_probabilities.shape[1])  # 0 where none had a regime
        probabilities[alike, :n_served] = fresh.regime_probabilities[alike, :n_served]
    served_rows = LabelledRows(
        X=fresh.X,
        y=fresh.y,
        side=fresh.side,
        ret=fresh.ret,
        weight=fresh.weight,
        odds=TradeOdds(spec.training.labels).of_rows(fresh.volatility)[0],
        volatility=fresh.volatility,
        exit_time=_exit_time(spec, fresh),
        label_start=fresh.label_start,
        label_end=fresh.label_end,
        regime=probabilities,
    )
    joined = served_rows
    if history is not None and champion is not None:
        learned_until_ns = champion.provenance.learned_until_ns
        if learned_until_ns is UNSET:
            new = fresh.label_start > history.label_start[-1]
        else:
            # A retrained model learned from the labels known by then: slower ones of the same time are still to come.
            new = fresh.label_end >= learned_until_ns
        joined = join_rows([history, served_rows[new]])
    return with_odds(joined, spec.training.labels, exit_times_of(joined.exit_time))


def _exit_time(spec: RetrainSpec, fresh: TrainingRows) -> FloatArray:
    """Return when later signals end the trades at the latest, as shares of the horizon."""
    labels = spec.training.labels
    if not labels.exit_on_signal:
        return np.ones(len(fresh))
    bars = (fresh.exit_signal - fresh.label_start) / spec.interval_ns
    return np.clip(bars, 1.0, labels.horizon_bars) / labels.horizon_bars


__all__ = ["RetrainResult", "RetrainSpec", "fresh_since_ns", "retrain", "seen_until_ns", "unseen_after_ns"]
