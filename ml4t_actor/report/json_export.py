"""The result of a backtest as JSON, for machines."""

import math
from collections.abc import Mapping

import msgspec
import numpy as np

from ml4t_actor.market_data import FloatArray
from ml4t_actor.report.backtest_result import BacktestResult, SizingDifference, TradedRun, regime_table
from ml4t_actor.report.baselines import accounts
from ml4t_actor.report.signal_fates import SignalFates, reasons
from ml4t_actor.report.verdict import assess


def result_json(result: BacktestResult) -> dict[str, object]:
    """Return the result as values that JSON has, None for what is undefined.

    Runs carry equity and return of every day; columns over signals are summed up by quantiles.
    """
    verdict = assess(result)
    return _json_object(
        {
            "title": result.title,
            "data": result.data_label,
            "synthetic": result.synthetic,
            "primary": result.primary,
            "instruments": result.instruments,
            "train_start_ns": result.train_start,
            "train_end_ns": result.train_end,
            "test_start_ns": result.test_start,
            "test_end_ns": result.test_end,
            "costs": result.costs,
            "signals": result.signals,
            "statuses": result.statuses,
            "latency_us": result.latency_us(),
            "confidence": quantiles(result.confidence),
            "toxicity": quantiles(result.toxicity),
            "regime_weight": quantiles(result.regime_weight),
            "regimes": [
                {"regime": regime, "signals": n, "mean_weight": weight}
                for regime, n, weight in regime_table(result)
            ],
            "break_even": result.break_even,
            "above_break_even": result.passed,
            "model_version": result.model_version,
            "model_kind": result.model_kind,
            "feature_importance": result.feature_importance,
            "fold_aucs": result.fold_aucs,
            "validation": result.validation.to_dict(),
            "test": None if result.test is None else result.test.to_dict(),
            "selection": None if result.selection is None else msgspec.to_builtins(result.selection),
            "path_skills": result.path_skills,
            "trials": None if result.trials is None else msgspec.to_builtins(result.trials),
            "runs": [_run_json(run) for run in result.runs],
            "enriched_less_flat": None if result.sizing is None else _sizing_json(result.sizing),
            "fates": None if result.fates is None else _fates_json(result.fates),
            "accounts": [line._asdict() for line in accounts(result)],
            "outcome": str(verdict.answer),
            "answer": verdict.sentence,
            "did_it_help": verdict.sentences,
        }
    )


def _run_json(run: TradedRun) -> dict[str, object]:
    return {
        "name": run.name,
        "starting_equity": run.starting_equity,
        "pnl": run.pnl,
        "pnl_fraction": run.pnl_fraction,
        "trades": run.trades,
        "fees": run.fees,
        "funding": run.funding,
        "max_drawdown": run.max_drawdown,
        "sharpe": run.sharpe._asdict(),
        "probabilistic_sharpe": run.probabilistic_sharpe,
        "block_days": run.block_days,
        "day_end_ns": run.day_ends,
        "daily_equity": run.daily_equity(run.day_ends),
        "daily_return": run.returns,
    }


def _sizing_json(sizing: SizingDifference) -> dict[str, object]:
    return {
        **sizing._asdict(),
        "per_day": sizing.per_day._asdict(),
        "at_equal_turnover": sizing.at_equal_turnover._asdict(),
    }


def _fates_json(fates: SignalFates) -> dict[str, object]:
    return {
        "signals": len(fates),
        "passed": int(fates.passed.sum()),
        "unit_risk": fates.unit_risk,
        "mean_risk": fates.mean_risk,
        "reasons": [reason._asdict() for reason in reasons(fates)],
    }


def _json_object(fields: Mapping[str, object]) -> dict[str, object]:
    return {str(name): _json_value(value) for name, value in fields.items()}


def _json_value(value: object) -> object:
    if isinstance(value, Mapping):
        return _json_object(value)
    if isinstance(value, list | tuple):
        return [_json_value(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return _json_value(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value


def quantiles(values: FloatArray) -> dict[str, float] | None:
    """Return minimum, quartiles, 5 %, 95 % and maximum of the finite values, None without any."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return None
    levels = {"min": 0.0, "p05": 0.05, "p25": 0.25, "p50": 0.5, "p75": 0.75, "p95": 0.95, "max": 1.0}
    return {name: float(np.quantile(finite, level)) for name, level in levels.items()}
