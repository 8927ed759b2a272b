"""Run every benchmark: ``python -m benchmarks``."""

import argparse
from typing import Protocol

from backtests.market import data_root
from benchmarks import (
    break_even,
    coverage,
    enrichment,
    expected_return,
    planted_account,
    planted_engine,
    positive_control,
    predict_one_row,
    redis_latency,
    retraining,
    sizing,
    skill,
    training,
    unseen_sets,
    vpin_quantiles,
    walks,
)


class Benchmark(Protocol):
    """A module of this package."""

    __name__: str

    def main(self, *, quick: bool) -> None:
        """Run it, or so little of it that it shows only that it runs."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a minute in all: that it runs, and no figures")
    quick = parser.parse_args().quick
    modules: list[Benchmark] = [
        predict_one_row,
        enrichment,
        training,
        retraining,
        redis_latency,
        skill,
        sizing,
        positive_control,
        walks,
        planted_account,
        planted_engine,
        break_even,
        coverage,
        expected_return,
    ]
    if data_root() is None:
        print("no market data (ML4T_DATA): synthetic bars stand in, and what needs recorded data is left out")
    else:
        modules += [vpin_quantiles, unseen_sets]
    for module in modules:
        print(f"\n== {module.__name__.removeprefix('benchmarks.')}")
        module.main(quick=quick)


if __name__ == "__main__":
    main()
