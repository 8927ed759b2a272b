"""Are expected returns true? Learned on the earlier part of each market, held against the later one.

What the features add to the expected gross return of each trade, in volatilities, is held against what it returned, in
volatilities too: where it is true the slope of the latter on the former is 1, all trades pooled. On planted markets the
truth is known; where nothing is planted, next to nothing may be learned. Then every recorded market with both
primaries, as in `benchmarks.unseen_sets`; and these again out of fold, by models that are trained anew five times.

    python -m benchmarks.expected_return [--seeds 10] [--jobs 1]
"""

import argparse
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from backtests.market import data_root
from backtests.primaries import PRIMARIES, batch_signals
from benchmarks.out_of_fold import walk_forward_folds
from benchmarks.planted import Form, Nature, planted_market
from benchmarks.progress import show
from benchmarks.unseen_sets import SetTask, set_tasks
from ml4t_actor.fan_out import fan_out
from ml4t_actor.indicators.features import META_FEATURE_NAMES
from ml4t_actor.labeling.dataset import build_dataset
from ml4t_actor.labeling.rows import LabelledRows
from ml4t_actor.market_data import Bars, FloatArray, IntArray, Signals
from ml4t_actor.settings import TrainingSettings
from ml4t_actor.training.loop import TrainingLoop
from ml4t_actor.validation import ReturnSlope, block_length, return_slope, shrunk_slope

TRAIN_SHARE = 0.6
PLANTED: tuple[tuple[Form, float | None], ...] = (
    ("regime", None),
    ("flow", None),
    ("regime", 0.0),
    ("flow", 0.0),
    ("walk", None),
)


class Predicted(NamedTuple):
    """What was expected of the later part of a set, and what came.

    Attributes
    ----------
    learned, realised : float64 (n,)
        The learned part of the expected gross return, and the gross return, in volatilities.
    start, end : int64 (n,)
        When the trade's label began and ended, UNIX nanoseconds.
    """

    learned: FloatArray
    realised: FloatArray
    start: IntArray
    end: IntArray

    @property
    def slope(self) -> ReturnSlope:
        """Slope of realised on learned."""
        return return_slope(self.learned, self.realised, block=block_length(self.start, self.end))

    @property
    def spread(self) -> float:
        """Standard deviation of the learned part around zero."""
        return float(np.sqrt(np.mean(self.learned**2)))


@dataclass(frozen=True, slots=True, kw_only=True)
class PlantedTask:
    """A planted market and a primary."""

    form: Form
    primary: str
    seed: int
    mu: float | None
    nature: Nature


def predict_later(rows: LabelledRows, interval_ns: int) -> Predicted:
    """Learn from the first `TRAIN_SHARE` of the time, less labels that end later, and predict the rest as served.

    What is served is multiplied with the slope that it had out of fold within the first part, see `shrunk_slope`.
    """
    first, last = int(rows.label_start[0]), int(rows.label_start[-1])
    split = first + int(TRAIN_SHARE * (last - first))
    earlier = np.flatnonzero(rows.label_end < split)
    later = _predicted(rows, [(earlier, np.flatnonzero(rows.label_start >= split))])
    found = predict_out_of_fold(rows[earlier], interval_ns).slope
    return later._replace(learned=shrunk_slope(found.slope, found.standard_error) * later.learned)


def predict_out_of_fold(rows: LabelledRows, interval_ns: int) -> Predicted:
    """Predict each fold of the walk-forward validation by what the rows before it teach."""
    splits = walk_forward_folds(rows, TrainingSettings(), interval_ns)
    return _predicted(rows, [(split.train, split.test) for split in splits])


def _predicted(rows: LabelledRows, splits: Sequence[tuple[IntArray, IntArray]]) -> Predicted:
    loop, learned = TrainingLoop(TrainingSettings(), feature_names=META_FEATURE_NAMES), []
    for train, test in splits:
        later = rows[test]
        model = loop.fit(rows, train).serving
        learned.append(model.answer_rows(later.X, later.odds, later.volatility).learned)
    tested = rows[np.concatenate([test for _, test in splits])]
    return Predicted(
        np.concatenate(learned), tested.ret / tested.volatility, tested.label_start, tested.label_end
    )


def predict_planted(task: PlantedTask) -> Predicted:
    """Return what is expected of a planted market's later part."""
    primary = PRIMARIES[task.primary]()
    market = planted_market(task.form, primary, task.seed, mu=task.mu, nature=task.nature)
    return predict_later(_rows(market.bars, market.signals), market.bars.interval_ns())


def predict_recorded(task: SetTask) -> tuple[Predicted, Predicted]:
    """Return what is expected of a recorded market's later part, and out of fold."""
    import pyarrow.parquet  # slow to import

    bars = Bars.coerce(pyarrow.parquet.read_table(task.path))[: task.max_bars]
    rows = _rows(bars, batch_signals(PRIMARIES[task.primary](), bars))
    interval_ns = bars.interval_ns()
    return predict_later(rows, interval_ns), predict_out_of_fold(rows, interval_ns)


def _rows(bars: Bars, signals: Signals) -> LabelledRows:
    return build_dataset(bars, signals, settings=TrainingSettings(), feature_names=META_FEATURE_NAMES)


def pooled(parts: Sequence[Predicted], *, within: bool = False) -> Predicted:
    """Return all trades in order of time; with `within`, each set's means are taken off both columns."""
    centre: Callable[[FloatArray], FloatArray] = (lambda x: x - x.mean()) if within else (lambda x: x)
    order = np.argsort(np.concatenate([part.start for part in parts]), kind="stable")
    return Predicted(
        np.concatenate([centre(part.learned) for part in parts])[order],
        np.concatenate([centre(part.realised) for part in parts])[order],
        np.concatenate([part.start for part in parts])[order],
        np.concatenate([part.end for part in parts])[order],
    )


def independent(parts: Sequence[Predicted]) -> tuple[float, float]:
    """Return the slope of all, and its error, of sets that have nothing to do with each other; means are taken off."""
    products = np.array([float((part.learned - part.learned.mean()) @ part.realised) for part in parts])
    squares = np.array([len(part.learned) * float(np.var(part.learned)) for part in parts])
    slope = float(products.sum() / squares.sum())
    influence = products - slope * squares
    n = len(parts)
    error = float(np.sqrt(influence @ influence * n / max(n - 1, 1)) / squares.sum())
    return slope, error


def line(name: str, predicted: Predicted) -> str:
    """Return what is found of one set, or of all."""
    found = predicted.slope
    low, high = found.interval
    return (
        f"{name:48} {found.n:8,} trades  learned part {predicted.spread:.4f} volatilities  slope {found.slope:+6.2f} "
        f"({found.standard_error:.2f})  [{low:+.2f}, {high:+.2f}]"
    )


def report_planted(n_seeds: int, n_jobs: int | None, nature: Nature) -> None:
    """Print the slopes of planted markets, and how much is learned where there is nothing."""
    for form, mu in PLANTED:
        tasks = [
            PlantedTask(form=form, primary=primary, seed=seed, mu=mu, nature=nature)
            for primary, seed in itertools.product(PRIMARIES, range(n_seeds))
        ]
        parts = fan_out(predict_planted, tasks, n_jobs=n_jobs)
        slope, error = independent(parts)
        spread = np.sqrt(np.mean([part.spread**2 for part in parts]))
        name = f"{form}, {'nothing planted' if form == 'walk' or mu == 0.0 else 'planted'}"
        print(
            f"{name:24} {len(parts):3} markets  learned part {spread:.4f} volatilities (median "
            f"{np.median([part.spread for part in parts]):.4f})  slope {slope:+.2f} ({error:.2f})"
        )


def report_recorded(tasks: Sequence[SetTask], n_jobs: int | None) -> None:
    """Print the slope of each recorded set, and of all."""
    predicted = fan_out(predict_recorded, tasks, n_jobs=n_jobs, progress=show)
    for task, (part, _) in zip(tasks, predicted, strict=True):
        print(line(f"{task.market}{'' if task.seen else ' UNSEEN'} {task.primary}", part))
    for what, parts in (
        ("the later part", [a for a, _ in predicted]),
        ("out of fold", [b for _, b in predicted]),
    ):
        print(line(f"{len(parts)} sets, pooled, {what}", pooled(parts)))
        print(line("  each set's means taken off", pooled(parts, within=True)))
        for primary in PRIMARIES:
            own = [part for task, part in zip(tasks, parts, strict=True) if task.primary == primary]
            if own:
                print(line(f"  {primary}", pooled(own)))


def main(*, quick: bool = False, n_seeds: int = 10, n_jobs: int | None = None) -> None:
    """Print both."""
    if quick:
        report_planted(1, 1, Nature(n_bars=20_000))
    else:
        report_planted(n_seeds, n_jobs, Nature())
    root = data_root()
    if root is None:
        print("no market data (ML4T_DATA): recorded markets are left out")
        return
    report_recorded(set_tasks(root, 20_000)[:2] if quick else set_tasks(root), 1 if quick else n_jobs)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Are expected returns true?")
    parser.add_argument("--seeds", type=int, default=10, help="planted markets of each form and primary")
    parser.add_argument("--jobs", type=int, help="worker processes; as many as CPUs by default")
    given = parser.parse_args()
    main(n_seeds=given.seeds, n_jobs=given.jobs)
