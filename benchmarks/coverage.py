"""How often an interval of 95 % holds the truth, where neighbours depend on each other.

Independent of the tests of `validation`: signals ride on one simulated price, labels are the sign of what it does over
the bars that follow, overlapping, and features persist; the truth is what the same scores come to on a history two
hundred times as long. Named baseline: 95 %, and 93 to 97 % asked for.

    python -m benchmarks.coverage [--simulations 2000] [--jobs 1]
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.signal import lfilter
from scipy.special import ndtr

from benchmarks.progress import show
from ml4t_actor.fan_out import fan_out
from ml4t_actor.market_data import FloatArray
from ml4t_actor.validation import auc_within_side, block_bootstrap, log_loss, sharpe_interval, skill

LONGER = 200
CHUNK = 50  # simulations in one task
SAMPLES = 300
DAYS = 250.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SharpeCase:
    """Returns that are an AR(1) of coefficient `phi` around `ratio` standard deviations."""

    phi: float
    n: int
    ratio: float
    block: int = 5

    def __str__(self) -> str:
        return f"Sharpe ratio {self.ratio:4.2f}, AR(1) of {self.phi:3.1f}, {self.n:6,} returns"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreCase:
    """Signals every `step` bars, labels over `window` bars, and a persistent feature that drifts the price."""

    n: int
    step: int
    window: int
    halflife_bars: float
    drift: float

    def __str__(self) -> str:
        return (
            f"scores of {self.n:6,} signals, {self.window // self.step:2} labels overlap, feature's half-life "
            f"{self.halflife_bars / self.step:4.0f} signals, drift {self.drift:4.2f}"
        )


Case = SharpeCase | ScoreCase

# At least fifty independent blocks each: n (1 - phi) / (1 + phi), or windows that do not overlap.
CASES: tuple[Case, ...] = (
    SharpeCase(phi=0.0, n=250, ratio=0.1),
    SharpeCase(phi=0.5, n=250, ratio=0.0),
    SharpeCase(phi=0.8, n=1_000, ratio=0.1),
    ScoreCase(n=3_000, step=6, window=60, halflife_bars=60.0, drift=0.0),
    ScoreCase(n=6_000, step=6, window=60, halflife_bars=240.0, drift=0.0),
    ScoreCase(n=6_000, step=6, window=60, halflife_bars=240.0, drift=0.05),
    ScoreCase(n=9_000, step=2, window=60, halflife_bars=120.0, drift=0.03),
)


def autoregression(rng: np.random.Generator, n: int, phi: float) -> FloatArray:
    """Return a stationary Gaussian AR(1) path (n,) of unit variance."""
    shocks = rng.standard_normal(n) * np.sqrt(1.0 - phi**2)
    path: FloatArray = lfilter([1.0], [1.0, -phi], shocks, zi=[phi * rng.standard_normal()])[0]
    return path


def signals(
    case: ScoreCase, rng: np.random.Generator, longer: int = 1
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return labels, probabilities of a forecaster who sees the feature, and sides, each (n * longer,)."""
    n_bars = case.n * longer * case.step + case.window
    feature = autoregression(rng, n_bars, 0.5 ** (1.0 / case.halflife_bars))
    moves = rng.standard_normal(n_bars)
    moves[1:] += case.drift * feature[:-1]
    price = np.cumsum(moves)
    at = np.arange(case.n * longer) * case.step
    side = np.where(rng.random(len(at)) < 0.5, -1.0, 1.0)
    y = (side * (price[at + case.window] - price[at]) > 0.0).astype(np.float64)
    # A forecaster who takes the drift for a bit more, or where there is none for something.
    lean = max(1.1 * case.drift, 0.01) * np.sqrt(case.window) * 0.8
    return y, ndtr(lean * side * feature[at]), side


def scores(y: FloatArray, p: FloatArray, side: FloatArray) -> tuple[float, float]:
    """Return AUC within side, and log-loss skill against one half."""
    return auc_within_side(y, p, side).within, skill(log_loss(y, p), log_loss(y, np.full(len(y), 0.5)))


def truth(case: Case) -> tuple[float, ...]:
    """Return what is estimated: in closed form, or from a long history."""
    if isinstance(case, SharpeCase):
        return (case.ratio * np.sqrt(DAYS),)
    return scores(*signals(case, np.random.default_rng([1, case.n]), LONGER))


def covers(case: Case, true: Sequence[float], seed: int) -> tuple[bool, ...]:
    """Return whether the interval of each score holds the truth in one simulation."""
    rng = np.random.default_rng([2, seed])
    if isinstance(case, SharpeCase):
        returns = 0.01 * (autoregression(rng, case.n, case.phi) + case.ratio)
        found = sharpe_interval(returns, DAYS, block=case.block, samples=SAMPLES, seed=seed)
        return (found.low <= true[0] <= found.high,)
    y, p, side = signals(case, rng)
    intervals = block_bootstrap(
        y,
        p,
        side,
        np.full(len(y), 0.5),
        block=2 * case.window // case.step,
        samples=SAMPLES,
        seed=seed,
    )
    auc, log_loss_skill = intervals.auc_within_side, intervals.log_loss_skill
    return auc.low <= true[0] <= auc.high, log_loss_skill.low <= true[1] <= log_loss_skill.high


@dataclass(frozen=True, slots=True, kw_only=True)
class CoverageTask:
    """Some simulations of one case."""

    case: Case
    true: tuple[float, ...]
    first_seed: int
    n: int


def count(task: CoverageTask) -> tuple[int, ...]:
    """Return in how many of the simulations each score was covered."""
    held = [covers(task.case, task.true, task.first_seed + i) for i in range(task.n)]
    return tuple(int(column.sum()) for column in np.array(held).T)


def report_case(case: Case, n_simulations: int, n_jobs: int | None) -> str:
    """Return a line with the coverage of each score, and its standard error."""
    true = truth(case)
    tasks = [
        CoverageTask(case=case, true=true, first_seed=first, n=min(CHUNK, n_simulations - first))
        for first in range(0, n_simulations, CHUNK)
    ]
    held = np.sum(fan_out(count, tasks, n_jobs=n_jobs, progress=show), axis=0) / n_simulations
    error = float(np.sqrt(0.95 * 0.05 / n_simulations))
    names = ("",) if isinstance(case, SharpeCase) else ("AUC ", "skill ")
    told = ", ".join(f"{name}{100 * share:.1f} %" for name, share in zip(names, held, strict=True))
    return f"{case!s:86} {told} (+- {100 * error:.1f})"


def main(*, quick: bool = False, n_simulations: int = 2_000, n_jobs: int | None = None) -> None:
    """Print the coverage of each case."""
    for case in CASES[2:5] if quick else CASES:
        print(report_case(case, 20 if quick else n_simulations, 1 if quick else n_jobs), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Coverage of intervals of 95 %.")
    parser.add_argument("--simulations", type=int, default=2_000)
    parser.add_argument("--jobs", type=int, help="worker processes; as many as CPUs by default")
    given = parser.parse_args()
    main(n_simulations=given.simulations, n_jobs=given.jobs)
