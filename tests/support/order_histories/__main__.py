"""Run histories.

``--seed 7`` prints one, ``--seeds 0-1999 --jobs 2`` runs many and prints what does not hold, by seed; ``--bug NAME``
plants a known bug first. The exit code is 1 if an invariant does not hold.
"""

import argparse
import json
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.support.order_histories.history import Result

_MODULE = "tests.support.order_histories"


def main() -> int:
    parser = argparse.ArgumentParser(
        prog=f"python -m {_MODULE}", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seed", type=int, help="print the history of this seed")
    parser.add_argument("--seeds", default="0-99", help="first and last, such as 0-99, the default")
    parser.add_argument("--jobs", type=int, default=1, help="processes, 1 by default")
    parser.add_argument("--bug", default="", help="plant this bug, see `bugs.py`")
    parser.add_argument("--until-found", action="store_true", help="end at the first history that fails")
    parser.add_argument(
        "--json", action="store_true", help="print violations as JSON: a list of each seed that fails"
    )
    arguments = parser.parse_args()
    if (
        os.environ.get("PYTHONHASHSEED") != "0"
    ):  # Nautilus's cache iterates over sets: else no two runs are alike
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, [sys.executable, "-m", _MODULE, *sys.argv[1:]])
    if arguments.seed is not None:
        result = run_with_bug(arguments.seed, arguments.bug)
        print("\n".join(result.lines))
        print(f"{result.entries} entries, {result.counts}")
        print("\n".join(f"VIOLATION {violation}" for violation in result.violations))
        return bool(result.violations)
    return _run_many(arguments)


def _run_many(arguments: argparse.Namespace) -> int:
    from tests.support.order_histories.bugs import BUGS

    first, last = map(int, arguments.seeds.split("-"))
    begun, entries, failed = time.monotonic(), 0, {}
    seeds = range(first, last + 1)
    with ProcessPoolExecutor(arguments.jobs) as pool:
        bugs = [arguments.bug] * len(seeds)
        results = (
            map(run_with_bug, seeds, bugs)
            if arguments.jobs == 1
            else pool.map(run_with_bug, seeds, bugs, chunksize=5)
        )
        for result in results:
            entries += result.entries
            if arguments.bug:  # what the code has of its own does not show it
                shown_by = BUGS[arguments.bug].shown_by
                result.violations = [v for v in result.violations if v.split(":")[0] in shown_by]
            if result.violations:
                failed[result.seed] = result.violations
                if not arguments.json:
                    print("\n".join(f"seed {result.seed}: {v}" for v in result.violations), flush=True)
                if arguments.until_found:
                    break
    if arguments.json:
        print(json.dumps(failed))
    else:
        seconds = time.monotonic() - begun
        print(f"{len(failed)} of {len(seeds)} histories fail; {entries} entries, {seconds:.0f} s")
    return bool(failed)


def run_with_bug(seed: int, bug: str) -> "Result":
    """Run the history of a seed with a bug planted, if one is named."""
    from tests.support.order_histories.bugs import planted
    from tests.support.order_histories.history import run

    with planted(bug):
        result = run(seed)
    if not bug:
        return result
    result.lines.clear()
    return result


if __name__ == "__main__":
    raise SystemExit(main())
