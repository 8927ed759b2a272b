"""The learning loop over months of bars, beside the same model frozen: ``python -m backtests.retraining``."""

import argparse
import sys
import time
from pathlib import Path

import numpy as np

from backtests.costs import TradingCosts
from backtests.engine import FROZEN, run_engine
from backtests.market import UNIVERSES, Market, load_markets
from backtests.primaries import PRIMARIES
from backtests.run import data_label
from backtests.training import choose_labels, span, train_before
from ml4t_actor.market_data import DAY_NS
from ml4t_actor.report import Timeline, read_timeline, timeline_text, write_timeline
from ml4t_actor.settings import GateSettings, TrainingSettings
from ml4t_actor.training.gate import compare_models
from ml4t_actor.validation import block_length

TRAIN_SHARE = 0.3
RETRAIN_DAYS = 14


def run(
    name: str, markets: list[Market], primary: str, out: Path, *, retrain_days: float = RETRAIN_DAYS
) -> tuple[Timeline, Timeline]:
    """Train on the first 30 %, then run the engine twice: learning, and frozen. Return both timelines."""
    _, split, _ = span(markets, TRAIN_SHARE)
    settings = TrainingSettings(labels=choose_labels(split, markets, primary, TradingCosts()))
    model_path = out / "models" / f"{name}-{primary}-retraining"
    train_before(split, markets, primary, settings, model_path)
    interval_ns = markets[0].bars.interval_ns()
    learning: dict[str, object] = {
        "retrain": "on",
        "retrain_interval_bars": round(retrain_days * DAY_NS / interval_ns),
        "retrain_min_samples": 1_000,
    }
    timelines = [
        read_timeline(
            run_engine(
                markets, primary, settings, model_path, sizing=None, start=split, learning=config
            ).ledger
        )
        for config in (learning, FROZEN)
    ]
    return timelines[0], timelines[1]


def compare(learned: Timeline, frozen: Timeline) -> str:
    """Return what learning took off the mean log loss of the same signals, with its interval."""
    frozen_confidence = learned.confidence_in(frozen)
    order = np.argsort(learned.start, kind="stable")
    order = order[np.isfinite(frozen_confidence[order])]
    y, weight = learned.label[order], learned.weight[order]
    better, worse = (
        compare_models(
            y,
            champion[order],
            challenger[order],
            weight=weight,
            baseline_p=float(np.average(y, weights=weight)),
            block=block_length(learned.start[order], learned.ts[order]),
            settings=GateSettings(confidence=0.975),
        )
        for champion, challenger in (
            (frozen_confidence, learned.confidence),
            (learned.confidence, frozen_confidence),
        )
    )
    differ = int((learned.confidence != frozen_confidence)[order].sum())
    compared = f"{differ:,} of the {len(y):,} signals that both runs answered were answered by another model"
    if better.improvement_low is None or worse.improvement_low is None:
        return f"{compared}: too few for an interval"
    return (
        f"{compared}; learning took {better.improvement:+.5f} off the mean log loss "
        f"[{better.improvement_low:+.5f}, {-worse.improvement_low:+.5f}]"
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m backtests.retraining", description=__doc__)
    parser.add_argument(
        "--universe", nargs="+", choices=sorted(UNIVERSES), default=["hyperliquid_5m", "bitfinex_1m"]
    )
    parser.add_argument("--primary", nargs="+", choices=sorted(PRIMARIES), default=["mean_reversion"])
    parser.add_argument("--markets", type=int, default=None, help="only so many markets of a universe")
    parser.add_argument("--days", type=float, default=RETRAIN_DAYS, help="days between two retrainings")
    parser.add_argument(
        "--synthetic", action="store_true", help="use the synthetic market even with real data"
    )
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for pages and models")
    arguments = parser.parse_args()
    for universe in arguments.universe:
        n_markets = arguments.markets or (
            1 if universe == "bitfinex_1m" else None
        )  # one of its files is 240 days
        markets = load_markets(universe, synthetic=arguments.synthetic)[:n_markets]
        for primary in arguments.primary:
            started = time.perf_counter()
            print(f"[{universe} {primary}] learning and frozen ...", file=sys.stderr, flush=True)
            learned, frozen = run(universe, markets, primary, arguments.out, retrain_days=arguments.days)
            title = f"{primary.replace('_', ' ')} on {', '.join(market.name for market in markets)}"
            note = (
                f"{data_label(markets)}; a retraining each {arguments.days:g} days, or when the monitor asks"
            )
            print(f"{title}\n{note}\n{timeline_text(learned, frozen)}\n{compare(learned, frozen)}")
            page = write_timeline(
                learned, arguments.out / f"timeline-{universe}-{primary}.html", title=title, note=note
            )
            print(f"page: {page} ({time.perf_counter() - started:.0f} s)\n", flush=True)


if __name__ == "__main__":
    main()
