"""Run the backtests: ``python -m backtests``."""

import argparse
import json
import sys
import time
from pathlib import Path

from backtests.costs import add_cost_options, costs_of
from backtests.market import UNIVERSES, load_markets
from backtests.primaries import PRIMARIES
from backtests.run import run_backtest
from ml4t_actor.report import result_json, result_text, write_tearsheet


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m backtests", description=__doc__)
    parser.add_argument(
        "--universe", nargs="+", choices=sorted(UNIVERSES), default=["hyperliquid_5m", "binance_1m"]
    )
    parser.add_argument("--primary", nargs="+", choices=sorted(PRIMARIES), default=list(PRIMARIES))
    parser.add_argument("--estimator", choices=["logistic", "hist_gradient_boosting"], default="logistic")
    parser.add_argument(
        "--synthetic", action="store_true", help="use the synthetic market even with real data"
    )
    add_cost_options(parser)
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for results and models")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    costs = costs_of(arguments)
    results = []
    for universe in arguments.universe:
        markets = load_markets(universe, synthetic=arguments.synthetic)
        for primary in arguments.primary:
            name = f"{universe} {primary}"  # every line of progress says which of the runs it is about
            started = time.perf_counter()

            def print_progress(what: str, share: float, name: str = name) -> None:
                del share
                print(f"[{name}] {what} ...", file=sys.stderr, flush=True)

            result = run_backtest(
                universe,
                markets,
                primary,
                arguments.out,
                estimator=arguments.estimator,
                costs=costs,
                progress=print_progress,
            )
            print(f"[{name}] took {time.perf_counter() - started:.1f} s", file=sys.stderr, flush=True)
            print(result_text(result), end="\n\n", flush=True)
            results.append(result)
    tearsheet = write_tearsheet(results, arguments.out / "tearsheet.html")
    numbers = arguments.out / "account.json"
    numbers.write_text(json.dumps([result_json(result) for result in results], indent=2) + "\n")
    print(f"tearsheet: {tearsheet}\nnumbers:   {numbers}")


if __name__ == "__main__":
    main()
