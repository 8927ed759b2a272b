"""The account as plain values, for machines."""

import math
from typing import Any

import numpy as np

from ml4t_actor.market_data import FloatArray
from ml4t_actor.report.backtest_result import BacktestResult, SizingDifference, TradedRun, regime_table
from ml4t_actor.report.verdict import judge


def result_json(account: BacktestResult) -> dict[str, Any]:
    """Return the account as plain values for JSON, None for what is undefined.

    Runs carry equity and return of every day; columns over signals are summed up by quantiles.
    """
    judgement = judge(account)
    plain: dict[str, Any] = _plain(
        {
            "title": account.title,
            "data": account.data_label,
            "synthetic": account.synthetic,
            "primary": account.primary,
            "instruments": account.instruments,
            "train_start_ns": account.train_start,
            "train_end_ns": account.train_end,
            "test_start_ns": account.test_start,
            "test_end_ns": account.test_end,
            "costs": account.costs,
            "signals": account.signals,
            "statuses": account.statuses,
            "latency_us": account.latency_us(),
            "confidence": quantiles(account.confidence),
            "toxicity": quantiles(account.toxicity),
            "regime_weight": quantiles(account.regime_weight),
            "regimes": [
                {"regime": regime, "signals": n, "mean_weight": weight}
                for regime, n, weight in regime_table(account)
            ],
            "break_even": account.break_even,
            "above_break_even": account.above_break_even,
            "model_version": account.model_version,
            "model_kind": account.model_kind,
            "feature_importance": account.feature_importance,
            "fold_aucs": account.fold_aucs,
            "validation": account.validation.to_dict(),
            "test": None if account.test is None else account.test.to_dict(),
            "runs": [_run_json(run) for run in account.runs],
            "enriched_less_flat": None if account.sizing is None else _sizing_json(account.sizing),
            "outcome": str(judgement.outcome),
            "did_it_help": judgement.sentences,
        }
    )
    return plain


def _run_json(run: TradedRun) -> dict[str, Any]:
    return {
        "name": run.name,
        "starting_equity": run.starting_equity,
        "pnl": run.pnl,
        "pnl_fraction": run.pnl_fraction,
        "trades": run.trades,
        "fees": run.fees,
        "max_drawdown": run.max_drawdown,
        "sharpe": run.sharpe._asdict(),
        "probabilistic_sharpe": run.probabilistic_sharpe,
        "block_days": run.block_days,
        "day_end_ns": run.day_ends,
        "daily_equity": run.daily_equity(run.day_ends),
        "daily_return": run.returns,
    }


def _sizing_json(sizing: SizingDifference) -> dict[str, Any]:
    return {
        **sizing._asdict(),
        "per_day": sizing.per_day._asdict(),
        "at_equal_turnover": sizing.at_equal_turnover._asdict(),
    }


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value


def quantiles(values: FloatArray) -> dict[str, float] | None:
    """Return minimum, quartiles, 5 %, 95 % and maximum of the finite values, None without any."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return None
    levels = {"min": 0.0, "p05": 0.05, "p25": 0.25, "p50": 0.5, "p75": 0.75, "p95": 0.95, "max": 1.0}
    return {name: float(np.quantile(finite, level)) for name, level in levels.items()}
