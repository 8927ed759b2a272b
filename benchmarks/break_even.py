"""Is the served break-even the observed one? By cost over volatility, on later signals than were learned from.

Observed is the mean net loss over the sum of mean net win and loss, in volatilities: the share of trades that must pay
for nothing to be earned. Served is what a bundle answers that was made from the first 60 % of a market's bars. Each
market of the data folder (those that are not the product's own count as unseen) with both primaries, and walks without
an edge; labels that signals end, and labels that they do not. Named baselines: the formula of 0.1.0,
(sl + c) / (pt + sl) for a cost of c volatilities, which knows neither horizon nor signals; and a random walk that knows
both, but learns nothing. A primary's trades are of one kind: those of two together have another break-even than the
mean of both, so that the line of both together says how far two kinds can be apart.

    python -m benchmarks.break_even [--seeds 8] [--jobs 1]
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from backtests.market import data_root
from backtests.primaries import PRIMARIES, batch_signals
from benchmarks.planted import planted_market
from benchmarks.progress import show
from benchmarks.unseen_sets import SetTask, set_tasks
from benchmarks.walks import nature_of
from ml4t_actor.fan_out import fan_out
from ml4t_actor.labeling.dataset import build_dataset
from ml4t_actor.labeling.odds import TradeOdds, exit_times_of, fit_break_even_shift
from ml4t_actor.labeling.rows import LabelledRows
from ml4t_actor.market_data import Bars, FloatArray, Signals
from ml4t_actor.settings import LabelSettings, TrainingSettings

BANDS = ((0.10, 0.15), (0.15, 0.25), (0.25, 0.40), (0.40, 0.70))
TRAIN_SHARE = 0.6
N_WALK_BARS = 120_000
BLOCK_ROWS = 50
MIN_ROWS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakEvenTask:
    """One market, primary and kind of label: a recorded market, or the walk of a seed."""

    primary: str
    exit_on_signal: bool
    recorded: SetTask | None = None
    seed: int = 0
    n_bars: int = N_WALK_BARS

    @property
    def where(self) -> str:
        """What kind of market it is."""
        return "walks" if self.recorded is None else "recorded"


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class BreakEvenResult:
    """Later signals of one task.

    Attributes
    ----------
    task : BreakEvenTask
    threshold, net : float64 (n,)
        Cost, and net return, over volatility.
    served, walk, formula : float64 (n,)
        The break-even of the bundle, of a random walk alone, and of 0.1.0.
    """

    task: BreakEvenTask
    threshold: FloatArray
    net: FloatArray
    served: FloatArray
    walk: FloatArray
    formula: FloatArray


def measure(task: BreakEvenTask) -> BreakEvenResult:
    """Learn from the earlier signals of a market, and compare with the later ones."""
    labels = LabelSettings(exit_on_signal=task.exit_on_signal)
    bars, signals = _market(task)
    rows = build_dataset(
        bars, signals, settings=TrainingSettings(labels=labels), feature_names=("volatility",)
    )
    split = int(bars.ts_event[int(TRAIN_SHARE * len(bars))])
    return measure_later(task, rows[rows.label_end < split], rows[rows.label_start >= split], labels)


def measure_later(
    task: BreakEvenTask, before: LabelledRows, after: LabelledRows, labels: LabelSettings
) -> BreakEvenResult:
    """Learn from rows, and compare with those after them."""
    exit_times = exit_times_of(before.exit_time)
    shift = fit_break_even_shift(before, labels, exit_times)
    threshold = labels.cost / after.volatility
    pt, sl = labels.profit_barrier, labels.stop_barrier
    return BreakEvenResult(
        task=task,
        threshold=threshold,
        net=after.ret / after.volatility - threshold,
        served=TradeOdds(labels, exit_times, shift).of_rows(after.volatility)[1],
        walk=TradeOdds(labels, exit_times).of_rows(after.volatility)[1],
        formula=np.minimum((sl + threshold) / (pt + sl), 1.0),
    )


def _market(task: BreakEvenTask) -> tuple[Bars, Signals]:
    primary = PRIMARIES[task.primary]()
    if task.recorded is None:
        market = planted_market("walk", primary, task.seed, nature=nature_of(task.seed, task.n_bars))
        return market.bars, market.signals
    import pyarrow.parquet  # slow to import

    bars = Bars.coerce(pyarrow.parquet.read_table(task.recorded.path))[: task.recorded.max_bars]
    return bars, batch_signals(primary, bars)


def observed(nets: Sequence[FloatArray]) -> tuple[float, float]:
    """Return the break-even of trades, and its standard error.

    Parameters
    ----------
    nets : sequence of float64 (n,)
        Net returns of each set, in order of time: neighbours go together, sets do not. The error is that of the
        linearised ratio, summed by blocks of 50 rows.
    """
    net = np.concatenate(nets)
    won = net > 0.0
    if won.all() or not won.any():
        return np.nan, np.nan
    win, loss = net[won].mean(), -net[~won].mean()

    def influence(values: FloatArray) -> FloatArray:
        of_wins = -loss * (values - win) / won.sum()
        of_losses = win * (-values - loss) / (~won).sum()
        return np.where(values > 0.0, of_wins, of_losses) / (win + loss) ** 2

    blocks = np.concatenate(
        [np.add.reduceat(influence(part), np.arange(0, len(part), BLOCK_ROWS)) for part in nets if len(part)]
    )
    return float(loss / (win + loss)), float(np.sqrt((blocks**2).sum()))


def band_line(results: Sequence[BreakEvenResult], band: tuple[float, float]) -> str:
    """Return what is served and observed in one band, of all trades together, and on average over the sets."""
    chosen = [(r, (r.threshold >= band[0]) & (r.threshold < band[1])) for r in results]
    n = sum(int(rows.sum()) for _, rows in chosen)
    head = f"  {band[0]:.2f} to {band[1]:.2f}  {n:7,}"
    if n < MIN_ROWS:
        return f"{head}  too few"
    seen, error = observed([r.net[rows] for r, rows in chosen])
    means = [
        float(np.concatenate([getattr(r, name)[rows] for r, rows in chosen]).mean())
        for name in ("served", "walk", "formula")
    ]
    differences = "  ".join(f"{100 * (seen - mean):+7.2f}" for mean in means)
    sets = [
        (int(rows.sum()), observed([r.net[rows]])[0] - float(r.served[rows].mean()))
        for r, rows in chosen
        if rows.sum() >= MIN_ROWS
    ]
    known = [(size, gap) for size, gap in sets if np.isfinite(gap)]
    by_set = np.average([gap for _, gap in known], weights=[size for size, _ in known]) if known else np.nan
    return f"{head}   {means[0]:.4f}  {seen:.4f} +- {error:.4f}  {differences}  {100 * by_set:+9.2f} ({len(known)})"


def report(results: Sequence[BreakEvenResult]) -> str:
    """Return the tables: kinds of market and label, primaries, bands."""
    lines = [
        "  cost over v  signals  served  observed        less served, walk, formula, points   by set, less served"
    ]
    for where in ("recorded", "walks"):
        for exit_on_signal in (True, False):
            kind = [r for r in results if (r.task.where, r.task.exit_on_signal) == (where, exit_on_signal)]
            for primaries in (*((primary,) for primary in PRIMARIES), tuple(PRIMARIES)):
                group = [r for r in kind if r.task.primary in primaries]
                if not group:
                    continue
                ended = "labels that signals end" if exit_on_signal else "labels without exits by signals"
                lines.append(f"{where}, {ended}, {' and '.join(primaries)}: {len(group)} sets")
                lines += [band_line(group, band) for band in BANDS]
    return "\n".join(lines)


def tasks_of(recorded: Sequence[SetTask], n_seeds: int, n_bars: int = N_WALK_BARS) -> list[BreakEvenTask]:
    """Return both kinds of label for each recorded set, and for walks with both primaries."""
    return [
        *(
            BreakEvenTask(primary=task.primary, exit_on_signal=exits, recorded=task)
            for task in recorded
            for exits in (True, False)
        ),
        *(
            BreakEvenTask(primary=primary, exit_on_signal=exits, seed=seed, n_bars=n_bars)
            for seed in range(n_seeds)
            for primary in PRIMARIES
            for exits in (True, False)
        ),
    ]


def main(*, quick: bool = False, n_seeds: int = 8, n_jobs: int | None = None) -> None:
    """Print the report."""
    root = data_root()
    recorded = [] if root is None else set_tasks(root, 20_000)[:2] if quick else set_tasks(root)
    if root is None:
        print("no market data: set ML4T_DATA; walks only")
    tasks = tasks_of(recorded, 1, 20_000) if quick else tasks_of(recorded, n_seeds)
    print(report(fan_out(measure, tasks, n_jobs=1 if quick else n_jobs, progress=show)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Is the served break-even the observed one?")
    parser.add_argument("--seeds", type=int, default=8, help="walks for each primary")
    parser.add_argument("--jobs", type=int, help="worker processes; as many as CPUs by default")
    arguments = parser.parse_args()
    main(n_seeds=arguments.seeds, n_jobs=arguments.jobs)
