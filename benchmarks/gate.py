"""How often the promotion gate lets a challenger through: simulated forecasters, and fitted meta-models.

A label looks 60 bars ahead and there is a signal every 5, so that neighbouring outcomes share up to 55 bars of a
random walk; features and errors of the models persist for hours. Rates come with Wilson's 95 % intervals. Named
baseline: the rate that `confidence` allows for equal models, 1 % by default.

    python -m benchmarks.gate [--runs 200] [--confidence 0.99]
"""

import argparse
import time
from collections.abc import Callable, Iterator

import numpy as np

from ml4t_actor.market_data import FloatArray
from ml4t_actor.meta_model.calibration import expit
from ml4t_actor.meta_model.estimator import MetaModel
from ml4t_actor.settings import GateSettings
from ml4t_actor.training.gate import GateDecision, compare_models
from ml4t_actor.validation import wilson_interval

HORIZON_BARS, STEP_BARS = 60, 5
OVERLAP = HORIZON_BARS // STEP_BARS
BLOCK = 2 * OVERLAP
WINDOWS = (500, 1_000, 2_000)
N_TRAIN, N_FEATURES = 3_000, 8
BOOTSTRAP_SAMPLES = 500
SEED = 20_240_601  # not one that the gate's limits were chosen with

Forecasts = tuple[FloatArray, FloatArray, FloatArray]
Scenario = Callable[[np.random.Generator, int], Forecasts]


def normal_cdf(x: FloatArray) -> FloatArray:
    from scipy.special import ndtr

    p: FloatArray = ndtr(x)
    return p


def persistent(rng: np.random.Generator, n: int, k: int = 1, memory: float = 0.95) -> FloatArray:
    """Return `k` columns of standard normal AR(1) processes; 0.95 halves in 13 signals, 67 bars."""
    from scipy.signal import lfilter

    noise = rng.normal(size=(n, k))
    noise[1:] *= np.sqrt(1.0 - memory**2)
    return np.asarray(lfilter([1.0], [1.0, -memory], noise, axis=0), np.float64)


def outcomes(rng: np.random.Generator, score: FloatArray) -> FloatArray:
    """Return labels that are 1 with probability `normal_cdf(score)`, as dependent as their windows overlap."""
    n = len(score)
    path = np.concatenate([[0.0], np.cumsum(rng.normal(size=n * STEP_BARS + HORIZON_BARS))])
    first = STEP_BARS * np.arange(n)
    walk = (path[first + HORIZON_BARS] - path[first]) / np.sqrt(HORIZON_BARS)
    return np.asarray(score + walk > 0.0, np.float64)


def expected_log_loss(known: float, unknown: float = 0.0) -> float:
    """Return the log loss of one who knows a standard normal of effect `known` and misses one of `unknown`."""
    x = np.linspace(-8.0, 8.0, 801)
    density = np.exp(-0.5 * x**2)
    # Calibrated: the expected loss is the entropy of the forecast.
    p = np.clip(normal_cdf(known * x / np.sqrt(1.0 + unknown**2)), 1e-12, 1.0 - 1e-12)
    entropy = -(p * np.log(p) + (1.0 - p) * np.log1p(-p))
    return float(density @ entropy / density.sum())


def effect_of(gain: float, known: float) -> float:
    """Return the effect of a second feature whose knowledge lowers the log loss by the share `gain`."""
    low, high = 0.0, 3.0
    for _ in range(60):
        effect = 0.5 * (low + high)
        # Two independent effects are as good as one of their Euclidean length.
        ratio = expected_log_loss(float(np.hypot(known, effect))) / expected_log_loss(known, effect)
        low, high = (effect, high) if 1.0 - ratio < gain else (low, effect)
    return effect


def equal_models(rng: np.random.Generator, n: int) -> Forecasts:
    """Both err around the truth, independently and equally."""
    score = 0.4 * persistent(rng, n)[:, 0]
    errors = 0.2 * persistent(rng, n, 2)
    return outcomes(rng, score), normal_cdf(score + errors[:, 0]), normal_cdf(score + errors[:, 1])


def improvement(gain: float, known: float = 0.3) -> Scenario:
    """Both calibrated; the challenger knows one more feature, which lowers the log loss by the share `gain`."""
    effect = effect_of(gain, known)

    def scenario(rng: np.random.Generator, n: int) -> Forecasts:
        x = persistent(rng, n, 2)
        score = known * x[:, 0] + effect * x[:, 1]
        champion = known * x[:, 0] / np.sqrt(1.0 + effect**2)
        return outcomes(rng, score), normal_cdf(champion), normal_cdf(score)

    return scenario


def overconfident(rng: np.random.Generator, n: int) -> Forecasts:
    """The challenger knows what the calibrated champion knows, and triples its log odds."""
    score = 0.3 * persistent(rng, n)[:, 0]
    p = normal_cdf(score)
    return outcomes(rng, score), p, expit(3.0 * np.log(p / (1.0 - p)))


def champion_gone_bad(gain: float) -> Scenario:
    """The effect changed its sign, and only the challenger, better than a constant by `gain`, knows."""
    effect = effect_of(gain, 0.0)

    def scenario(rng: np.random.Generator, n: int) -> Forecasts:
        score = effect * persistent(rng, n)[:, 0]
        return outcomes(rng, score), normal_cdf(-score), normal_cdf(score)

    return scenario


def noise(skill: float, error: float = 0.1) -> Scenario:
    """The challenger is a constant plus noise; the champion has `skill` (negative: with the wrong sign)."""
    effect = effect_of(abs(skill), 0.0)

    def scenario(rng: np.random.Generator, n: int) -> Forecasts:
        score = effect * persistent(rng, n)[:, 0]
        guess = error * persistent(rng, n)[:, 0]
        return outcomes(rng, score), normal_cdf(np.sign(skill) * score), normal_cdf(guess)

    return scenario


SIMULATED: dict[str, Scenario] = {
    "equal models": equal_models,
    "noise against 2 % skill": noise(0.02),
    "noise against 2 % skill of the wrong sign": noise(-0.02),
    "overconfident: log odds times 3": overconfident,
    "log loss lower by 0.5 %": improvement(0.005),
    "log loss lower by 1 %": improvement(0.01),
    "log loss lower by 2 %": improvement(0.02),
    "log loss lower by 5 %": improvement(0.05),
    "log loss lower by 10 %": improvement(0.10),
    "2 % skill against its opposite": champion_gone_bad(0.02),
    "5 % skill against its opposite": champion_gone_bad(0.05),
}


def decide(forecasts: Forecasts, settings: GateSettings) -> GateDecision:
    y, champion, challenger = forecasts
    return compare_models(y, champion, challenger, baseline_p=0.5, block=BLOCK, settings=settings)


def fitted_cases(
    seed: int, windows: tuple[int, ...] = WINDOWS, effect: float = 0.25
) -> Iterator[tuple[str, int, Forecasts]]:
    """Yield name, rows and forecasts of meta-models fitted to 3,000 rows and compared on the rows after them.

    Two of eight features matter, equally. Rows between the last training label and the window are left out.
    """
    rng = np.random.default_rng([SEED, seed])
    X = persistent(rng, N_TRAIN + OVERLAP + max(windows), N_FEATURES)
    score = effect * (X[:, 0] + X[:, 1])
    train, after = slice(N_TRAIN), slice(N_TRAIN + OVERLAP, None)
    y = outcomes(rng, score)
    flipped = outcomes(rng, -score)
    half = X.copy()
    half[:, 1] = persistent(rng, len(X))[:, 0]

    def forecasts(features: FloatArray, labels: FloatArray) -> FloatArray:
        worth = np.full(N_TRAIN, 1.0 / OVERLAP)  # of a label in independent ones
        return MetaModel().fit(features[train], labels, worth).predict_proba(features[after])

    skilled = forecasts(X, y[train])
    lacking = forecasts(half, y[train])
    shuffled, other = (forecasts(X, rng.permutation(y[train])) for _ in range(2))
    wrong = forecasts(X, flipped[train])
    cases = {
        "shuffled labels against a skilled champion": (skilled, shuffled),
        "shuffled labels against chance": (other, shuffled),
        "shuffled labels against a champion gone bad": (wrong, shuffled),
        "skilled, log odds times 3": (skilled, expit(3.0 * np.log(skilled / (1.0 - skilled)))),
        "one more of two features that matter": (lacking, skilled),
        "skilled against chance": (shuffled, skilled),
        "skilled against a champion gone bad": (wrong, skilled),
    }
    for name, (champion, challenger) in cases.items():
        for n in windows:
            yield name, n, (y[after][:n], champion[:n], challenger[:n])


class Tally:
    """Promotions and mean improvement of one case."""

    def __init__(self) -> None:
        self.promoted: list[bool] = []
        self.improvement: list[float] = []

    def add(self, decision: GateDecision) -> None:
        self.promoted.append(decision.promoted)
        self.improvement.append(100.0 * decision.improvement / decision.champion_log_loss)

    def __str__(self) -> str:
        rate = float(np.mean(self.promoted))
        low, high = wilson_interval(rate, len(self.promoted))
        return f"{100 * rate:5.1f} % [{100 * low:4.1f}, {100 * high:5.1f}]"


def print_table(title: str, tallies: dict[tuple[str, int], Tally]) -> None:
    columns = "".join(f"{f'{n:,} rows, {n / BLOCK:.0f} blocks':>22}" for n in WINDOWS)
    print(f"\n{title:45}{columns}{'log loss lower by':>20}")
    for name in dict.fromkeys(name for name, _ in tallies):
        cells = "".join(f"{tallies[name, n]!s:>22}" for n in WINDOWS)
        print(f"{name:45}{cells}{np.mean(tallies[name, WINDOWS[-1]].improvement):>18.2f} %")


def main(runs: int = 200, confidence: float = 0.99) -> None:
    settings = GateSettings(bootstrap_samples=BOOTSTRAP_SAMPLES, confidence=confidence)
    started = time.perf_counter()
    print(
        f"share promoted at {confidence:g} confidence; labels of {HORIZON_BARS} bars, a signal every {STEP_BARS}, "
        f"blocks of {BLOCK} signals, {BOOTSTRAP_SAMPLES} resamples"
    )
    tallies = {(name, n): Tally() for name in SIMULATED for n in WINDOWS}
    for (name, n), tally in tallies.items():
        rng = np.random.default_rng([SEED, n])
        for _ in range(runs):
            tally.add(decide(SIMULATED[name](rng, n), settings))
    print_table(f"simulated forecasters, {runs} windows", tallies)

    fitted: dict[tuple[str, int], Tally] = {}
    n_fits = max(1, runs // 2)
    for seed in range(n_fits):
        for name, n, forecasts in fitted_cases(seed):
            fitted.setdefault((name, n), Tally()).add(decide(forecasts, settings))
    print_table(f"MetaModel on {N_TRAIN:,} rows, {n_fits} histories", fitted)
    print(f"\n{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="How often the promotion gate lets a challenger through.")
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--confidence", type=float, default=0.99)
    main(**vars(parser.parse_args()))
