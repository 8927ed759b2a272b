"""Run histories.

``--seed 7`` prints one, ``--seeds 0-1999 --jobs 2`` runs many and prints what does not hold, by seed; ``--bug NAME``
plants a known bug first, ``--bugs`` each of them in turn. ``--stand-in`` runs those of ``--seed`` or ``--seeds`` on the
stand-in venue, with the real node and adapter, in real time; by default the twenty that are always repeated there. The
exit code is 1 if an invariant does not hold.
"""

import argparse
import json
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.support.order_histories.history import Result

# Seeds that show most of the planted bugs: they are tried first.
_FINDERS = frozenset({0, 2, 6, 7, 8, 11, 12, 18, 23, 61, 90})
_MODULE = "tests.support.order_histories"


def main() -> int:
    parser = argparse.ArgumentParser(
        prog=f"python -m {_MODULE}", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seed", type=int, help="print the history of this seed")
    parser.add_argument("--seeds", default="", help="first and last, such as 0-99, the default, or some: 3,5")
    parser.add_argument("--jobs", type=int, default=1, help="processes, 1 by default")
    parser.add_argument("--bug", default="", help="plant this bug, see `bugs.py`")
    parser.add_argument(
        "--bugs", action="store_true", help="plant each in turn, and print the seed that finds it"
    )
    parser.add_argument("--stand-in", action="store_true", help="run on the stand-in venue, in real time")
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
    if arguments.bugs:
        return _find_bugs(arguments)
    if arguments.stand_in and arguments.seed is None:
        return _run_on_stand_in(arguments)
    if arguments.seed is not None:
        if arguments.stand_in:
            from tests.support.order_histories.stand_in import run_on_stand_in

            result = run_on_stand_in(arguments.seed)
        else:
            result = run_with_bug(arguments.seed, arguments.bug)
        print("\n".join(result.lines))
        print(f"{result.entries} entries, {result.counts}")
        print("\n".join(f"VIOLATION {violation}" for violation in result.violations))
        return bool(result.violations)
    return _run_many(arguments)


def _run_many(arguments: argparse.Namespace) -> int:
    begun, entries, failed = time.monotonic(), 0, {}
    seeds = _seeds(arguments.seeds or "0-99")
    with ProcessPoolExecutor(arguments.jobs) as pool:
        bugs = [arguments.bug] * len(seeds)
        results = (
            map(run_with_bug, seeds, bugs)
            if arguments.jobs == 1
            else pool.map(run_with_bug, seeds, bugs, chunksize=5)
        )
        for result in results:
            entries += result.entries
            if arguments.bug:
                result.violations = _shown(result, arguments.bug)
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


def _find_bugs(arguments: argparse.Namespace) -> int:
    from tests.support.order_histories.bugs import BUGS

    seeds = _seeds(arguments.seeds or "0-99")
    seeds.sort(key=lambda seed: seed not in _FINDERS)  # to be quick
    found = {bug: next((s for s in seeds if _shown(run_with_bug(s, bug), bug)), None) for bug in BUGS}
    if arguments.json:
        print(json.dumps(found))
    else:
        print("\n".join(f"{bug}: {'not found' if seed is None else seed}" for bug, seed in found.items()))
    return any(seed is None for seed in found.values())


def _seeds(text: str) -> list[int]:
    first, dash, last = text.partition("-")
    return list(range(int(first), int(last) + 1)) if dash else [int(seed) for seed in text.split(",")]


def _shown(result: "Result", bug: str) -> list[str]:
    """Return the violations that show a bug: what the code has of its own does not."""
    from tests.support.order_histories.bugs import BUGS

    return [v for v in result.violations if v.split(":")[0] in BUGS[bug].shown_by]


def _run_on_stand_in(arguments: argparse.Namespace) -> int:
    from tests.support.order_histories.stand_in import SEEDS, run_on_stand_in

    begun, n_failed = time.monotonic(), 0
    seeds = _seeds(arguments.seeds) if arguments.seeds else SEEDS
    with ThreadPoolExecutor(arguments.jobs) as pool:  # they wait most of the time
        for result in pool.map(run_on_stand_in, seeds):
            print(f"seed {result.seed}: {result.entries} entries, {result.counts}", flush=True)
            for violation in result.violations:
                print(f"seed {result.seed}: VIOLATION {violation}", flush=True)
            n_failed += bool(result.violations)
    print(f"{n_failed} of {len(seeds)} histories fail on the stand-in; {time.monotonic() - begun:.0f} s")
    return bool(n_failed)


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
