"""Is a served probability true on recorded markets? Every market of the data folder, both primaries, per signal.

A set is unseen where its market took no part in making the product: put its bars into the folder that `ML4T_DATA`
names, as `bars_1m/<symbol>.<venue>.<range>.parquet`; the report marks it. Named baselines: the hit rate so far; the
recalibrated odds; river's online logistic regression, its best single rate chosen in hindsight; and what a forecaster
would achieve whose probabilities are those served, and true.

    python -m benchmarks.unseen_sets [--jobs 1]
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.special import ndtri

from backtests.market import UNIVERSES, data_root
from backtests.primaries import PRIMARIES, batch_signals
from benchmarks.online_baseline import RATES, online_predictions
from benchmarks.out_of_fold import OutOfFold, calibration_error
from benchmarks.progress import show
from ml4t_actor.fan_out import fan_out
from ml4t_actor.indicators.features import META_FEATURE_NAMES
from ml4t_actor.market_data import Bars, FloatArray
from ml4t_actor.settings import TrainingSettings
from ml4t_actor.training.loop import TrainingLoop

MIN_BARS = 30_000
SIMULATIONS = 100
LEVEL = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class SetTask:
    """One market and primary."""

    path: Path
    primary: str
    max_bars: int | None = None

    @property
    def market(self) -> str:
        """Symbol and venue."""
        return ".".join(self.path.name.split(".")[:2])

    @property
    def seen(self) -> bool:
        """Whether the market is one of those that the product was developed on."""
        return any(
            self.market == f"{listing.symbol}.{universe.exchange.venue}"
            for universe in UNIVERSES.values()
            for listing in universe.listings
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SetResult:
    """What is true of the probabilities served on one set.

    Attributes
    ----------
    task : SetTask
    n : int
        Tested signals.
    zero_share : float
        Share of them served as zero, since they cannot pay.
    skill, odds_skill : float
        Shares of log loss avoided: of the rate so far, and of the recalibrated odds.
    odds_p_less : float
        One-sided p value of the model's being no worse than the recalibrated odds.
    bias, calibration_error : float
        Mean served less hit rate, and mean gap over ten bins.
    perfect_skill, perfect_bias, perfect_error : float64 (n_simulations,)
        Skill, absolute bias and calibration error where outcomes follow the served probabilities.
    online_skill : dict
        By rate, of the online logistic regression.
    behind_p : dict
        By rate, the one-sided p value of the model's being no worse than it.
    """

    task: SetTask
    n: int
    zero_share: float
    skill: float
    odds_skill: float
    odds_p_less: float
    bias: float
    calibration_error: float
    perfect_skill: FloatArray
    perfect_bias: FloatArray
    perfect_error: FloatArray
    online_skill: dict[float, float]
    behind_p: dict[float, float]


def score_set(task: SetTask) -> SetResult:
    """Train on one set and score what is predicted out of fold."""
    import pyarrow.parquet  # slow to import

    bars = Bars.coerce(pyarrow.parquet.read_table(task.path))[: task.max_bars]
    settings = TrainingSettings()
    signals = batch_signals(PRIMARIES[task.primary](), bars)
    result = TrainingLoop(settings, feature_names=META_FEATURE_NAMES).train(bars, signals)
    found = OutOfFold.of(result, settings)
    gain = found.gain(found.p, found.base_odds)
    perfect = perfect_forecasts(found, bars.interval_ns(), SIMULATIONS, seed=0)
    online = {rate: online_predictions(result.dataset, rate)[result.out_of_fold_rows] for rate in RATES}
    return SetResult(
        task=task,
        n=len(found.y),
        zero_share=float((found.p <= 0.0).mean()),
        skill=found.skill(found.p, found.rate),
        odds_skill=found.skill(found.p, found.base_odds),
        odds_p_less=gain.p_less,
        bias=found.bias,
        calibration_error=calibration_error(found.y, found.p),
        perfect_skill=perfect[0],
        perfect_bias=perfect[1],
        perfect_error=perfect[2],
        online_skill={rate: found.skill(p, found.rate) for rate, p in online.items()},
        behind_p={rate: found.gain(found.p, p).p_less for rate, p in online.items()},
    )


def perfect_forecasts(
    found: OutOfFold, interval_ns: int, n: int, seed: int
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return skill, absolute bias and calibration error of the served probabilities if they were true, each (n,).

    Outcomes are drawn from them, dependent as labels are whose windows overlap: each compares the move of one random
    walk over its window, in the signal's direction, with the quantile that its probability asks for.
    """
    rng = np.random.default_rng(seed)
    origin = found.rows.label_start[0]
    first = (found.rows.label_start - origin) // interval_ns
    last = np.maximum((found.rows.label_end - origin) // interval_ns, first + 1)
    threshold = ndtri(found.p)
    out = np.empty((3, n))
    for i in range(n):
        path = np.concatenate([[0.0], np.cumsum(rng.standard_normal(int(last.max())))])
        move = found.rows.side * (path[last] - path[first]) / np.sqrt(last - first)
        world = found.with_labels((move < threshold).astype(np.float64))
        out[:, i] = (
            world.skill(world.p, world.rate),
            abs(world.bias),
            calibration_error(world.y, world.p),
        )
    return out[0], out[1], out[2]


def set_tasks(root: Path, max_bars: int | None = None) -> list[SetTask]:
    """Return both primaries on every recorded market of at least `MIN_BARS` bars in the folder."""
    import pyarrow.parquet

    return [
        SetTask(path=path, primary=primary, max_bars=max_bars)
        for path in sorted(root.glob("bars_*m/*.parquet"))
        if pyarrow.parquet.read_metadata(path).num_rows >= MIN_BARS
        for primary in PRIMARIES
    ]


def report(results: Sequence[SetResult]) -> str:
    """Return a line per set, and the figures that are asked for."""
    lines = [
        f"{'market':32} {'primary':15} signals  zero, %  skill, %  on the odds, %      p   bias, pts    ECE   online, %"
    ]
    rate = max(RATES, key=lambda r: np.mean([result.online_skill[r] for result in results]))
    lines += [
        (
            f"{r.task.market + ('' if r.task.seen else ' UNSEEN'):32} {r.task.primary:15} {r.n:7}  "
            f"{100 * r.zero_share:7.1f}  {100 * r.skill:+8.2f}  {100 * r.odds_skill:+14.2f}  {r.odds_p_less:5.2f}  "
            f"{100 * r.bias:+10.2f}  {r.calibration_error:5.3f}  {100 * r.online_skill[rate]:+10.2f}"
        )
        for r in results
    ]
    skills = np.array([r.skill for r in results])
    without_zero = [r.skill for r in results if r.zero_share == 0.0]
    online = np.array([r.online_skill[rate] for r in results])
    positive = np.sum([r.perfect_skill > 0.0 for r in results], axis=0)
    lines += [
        f"{len(results)} sets, {sum(not r.task.seen for r in results)} of them unseen",
        f"skill against the rate so far: positive on {int((skills > 0.0).sum())} (if what was served were true: "
        f"{positive.mean():.1f} +- {positive.std():.1f}); mean {100 * skills.mean():+.2f} % (if true: "
        f"{100 * np.mean([r.perfect_skill.mean() for r in results]):+.2f})",
        f"  the {len(without_zero)} sets without zero odds: mean {100 * np.mean(without_zero):+.2f} %",
        f"mean absolute bias {100 * np.mean([abs(r.bias) for r in results]):.2f} points (if true: "
        f"{100 * np.mean([r.perfect_bias.mean() for r in results]):.2f}); calibration error "
        f"{np.mean([r.calibration_error for r in results]):.4f} (if true: "
        f"{np.mean([r.perfect_error.mean() for r in results]):.4f})",
        f"against the recalibrated odds: significantly worse at 5 % on {sum(r.odds_p_less < LEVEL for r in results)}, "
        f"mean {100 * np.mean([r.odds_skill for r in results]):+.2f} %",
        f"online logistic regression, best rate {rate:g}: mean {100 * online.mean():+.2f} %, the model is ahead by "
        f"{100 * np.mean(skills - online):+.2f}, significantly behind on "
        f"{sum(r.behind_p[rate] < LEVEL for r in results)}",
    ]
    return "\n".join(lines)


def main(*, quick: bool = False, n_jobs: int | None = None) -> None:
    """Print the report."""
    root = data_root()
    if root is None:
        print("no market data: set ML4T_DATA")
        return
    tasks = set_tasks(root, 20_000)[:2] if quick else set_tasks(root)
    print(report(fan_out(score_set, tasks, n_jobs=1 if quick else n_jobs, progress=show)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Recorded markets: are served probabilities true?")
    parser.add_argument("--jobs", type=int, help="worker processes; as many as CPUs by default")
    main(n_jobs=parser.parse_args().jobs)
