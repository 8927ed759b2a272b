"""Results of backtests that were never run: real scores of made-up predictions, and made-up accounts."""

import math
import re

import msgspec
import numpy as np

from ml4t_actor.registry.trials import TrialsSummary
from ml4t_actor.report import BacktestResult, SignalFates, TradedRun
from ml4t_actor.settings import ValidationSettings
from ml4t_actor.validation import Interval, Scores, Selection, Verdict, evaluate

DAY = 86_400_000_000_000
START = 1_700_006_400_000_000_000  # a midnight, UTC
DAYS = 120


def scores(verdict: Verdict = Verdict.CHANCE, *, n: int = 4_000, seed: int = 0) -> Scores:
    """Real scores of made-up predictions, with the intervals that `verdict` needs."""
    rng = np.random.default_rng(seed)
    p = np.clip(rng.normal(0.5, 0.05, n), 0.2, 0.8)
    real = evaluate(
        rng.random(n) < p,
        p,
        rng.choice((-1, 1), n),
        np.full(n, 0.5),
        block=20,
        settings=ValidationSettings(bootstrap_samples=50),
    )
    up, down, no = Interval(0.51, 0.55), Interval(0.44, 0.49), Interval(0.49, 0.53)
    bounds = {
        Verdict.BETTER: (up, Interval(0.001, 0.009)),
        Verdict.RANKS_BETTER: (up, Interval(-0.002, 0.004)),
        Verdict.PROBABILITIES_BETTER: (no, Interval(0.001, 0.009)),
        Verdict.RANKS_WORSE: (down, Interval(-0.002, 0.004)),
        Verdict.CHANCE: (no, Interval(-0.002, 0.004)),
        Verdict.VOLATILITY_ONLY: (up, Interval(0.001, 0.009)),
        Verdict.ODDS_WORSE: (up, Interval(-0.002, 0.004)),
        Verdict.NO_INTERVAL: (Interval(math.nan, math.nan), Interval(math.nan, math.nan)),
    }[verdict]
    return msgspec.structs.replace(
        real, verdict=verdict, auc_within_side_interval=bounds[0], log_loss_skill_interval=bounds[1]
    )


def against_odds(verdict: Verdict = Verdict.CHANCE) -> Scores:
    """The same beside the odds of the trades."""
    return msgspec.structs.replace(
        scores(verdict),
        log_loss_odds=0.69,
        odds_skill=0.0123,
        odds_skill_interval=Interval(0.0045, 0.0201),
        odds_skill_low=0.0061,
        auc_null=0.534,
        auc_null_interval=Interval(0.521, 0.547),
    )


def selection(**changes: object) -> Selection:
    given: dict[str, object] = {
        "n": 900,
        "share": 0.2,
        "net_all": -8e-4,
        "net_confidence": -3e-4,
        "net_volatility": -3.5e-4,
        "over_volatility": 0.5e-4,
        "over_volatility_interval": Interval(-2e-4, 3e-4),
        "over_random": 5e-4,
        "over_random_interval": Interval(1e-4, 9e-4),
        "above_break_even": 40,
        "precision": 0.55,
        "recall": 0.06,
        "profit_factor": 0.9,
        "profit_factor_all": 0.7,
    }
    return Selection(**{**given, **changes})  # type: ignore[arg-type]


def trials(**changes: object) -> TrialsSummary:
    given: dict[str, object] = {
        "n_trials": 12,
        "rank": 3,
        "sharpe": 0.1,
        "expected_best": 0.15,
        "deflated_probability": 0.31,
        "overfitting": 0.62,
    }
    return TrialsSummary(**{**given, **changes})  # type: ignore[arg-type]


def undefined_scores() -> Scores:
    """Scores of a few rows of one class: nearly everything is NaN."""
    return evaluate(
        [1.0, 1.0, 1.0],
        [0.5, 0.6, 0.4],
        [1, -1, 1],
        [0.5, 0.5, 0.5],
        block=1,
        settings=ValidationSettings(bootstrap_samples=5),
    )


def run(name: str, daily: np.ndarray, *, trades: int = 100, fees: float = 100.0) -> TradedRun:
    """A run with these daily returns, sampled at midnights."""
    ts = START + np.arange(len(daily) + 1) * DAY
    equity = 10_000.0 * np.concatenate(([1.0], np.cumprod(1.0 + daily)))
    return TradedRun(
        name=name, ts=ts, equity=equity, trades=trades, fees=fees if trades else 0.0, starting_equity=10_000.0
    )


def noise(seed: int, mean_bp: float, days: int = DAYS) -> np.ndarray:
    """Daily returns of a fixed mean and ten basis points of noise."""
    draws = np.random.default_rng(seed).normal(0.0, 10e-4, days)
    return draws - draws.mean() + mean_bp * 1e-4


def backtest_result(**changes: object) -> BacktestResult:
    """A realistic result, in which nothing helped."""
    rng = np.random.default_rng(5)
    n = 900
    given: dict[str, object] = {
        "title": "Mean reversion, one-minute bars",
        "data_label": "exchange bars of 2023",
        "synthetic": False,
        "primary": "mean_reverter",
        "instruments": ("BTCUSDT-PERP.BINANCE", "ETHUSDT-PERP.BINANCE"),
        "train_start": START - 200 * DAY,
        "train_end": START - DAY,
        "test_start": START,
        "test_end": START + DAYS * DAY,
        "costs": 0.0009,
        "signals": 1_000,
        "statuses": {"warming_up": 60, "ok": n, "stale_data": 30},
        "latency_ns": rng.lognormal(10.3, 0.4, 990).astype(np.int64),
        "ts": START + np.sort(rng.integers(0, DAYS * DAY, n)),
        "confidence": rng.normal(0.5, 0.03, n),
        "toxicity": rng.random(n),
        "regime_weight": 0.3 + 0.4 * rng.random(n),
        "regime": rng.integers(0, 3, n),
        "break_even": 0.53,
        "model_version": "20231114T000000-abc",
        "model_kind": "logistic",
        "feature_importance": {f"feature_{i}": (10 - i) / 55 for i in range(10)},
        "fold_aucs": (0.52, 0.49, 0.51),
        "validation": scores(seed=1),
        "test": scores(seed=2),
        "runs": (run("flat", noise(1, 0.0)), run("enriched", noise(2, 0.0), fees=50.0)),
    }
    return BacktestResult(**{**given, **changes})


def signal_fates(
    n: int = 1_000,
    *,
    seed: int = 0,
    days: int = DAYS,
    fates: tuple[str, ...] = ("model", "traded", "odds", "position", "limits", "exit", "status"),
) -> SignalFates:
    """Signals of made-up fates, a fifth of them without a label, whose labels are as good as chance."""
    rng = np.random.default_rng(seed)
    ts = START + np.sort(rng.integers(0, days * DAY - DAY, n))
    fate = tuple(str(name) for name in rng.choice(fates, n))
    net = np.where(rng.random(n) < 0.2, np.nan, rng.normal(0.0, 0.01, n))
    traded = np.array([name == "traded" for name in fate], dtype=bool)
    return SignalFates(
        ts=ts,
        end=np.where(np.isfinite(net), ts + rng.integers(1, DAY // 24, n), -1),
        instrument=rng.integers(0, 3, n),
        fate=fate,
        passed=traded | (rng.random(n) < 0.1),
        volatility=rng.uniform(0.005, 0.02, n),
        net=net,
        risk=0.002 * traded,
        unit_risk=0.0025,
        filter_volatility=0.01,
    )


def traded(flat_bp: float, enriched_bp: float, **enriched: object) -> tuple[TradedRun, TradedRun]:
    return run("flat", noise(1, flat_bp)), run("enriched", noise(2, enriched_bp), **enriched)


def flat_in(text: str) -> str:
    return re.sub(r"\s+", " ", text)
