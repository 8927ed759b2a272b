"""Run histories: ``--seed N`` prints one; ``--seeds 0-1999`` runs many and says which fail."""

import argparse
import os
import sys


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.support.order_histories", description=__doc__)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--seeds", default="0-99", help="first and last, as in 0-99")
    arguments = parser.parse_args()
    if os.environ.get("PYTHONHASHSEED") != "0":  # Nautilus's cache iterates over sets: else no two runs are alike
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, [sys.executable, "-m", "tests.support.order_histories", *sys.argv[1:]])
    from tests.support.order_histories.history import run

    if arguments.seed is not None:
        result = run(arguments.seed)
        print("\n".join(result.lines))
        print("\n".join(f"VIOLATION {v}" for v in result.violations))
        print(result.entries, result.counts)
        return bool(result.violations)
    first, last = map(int, arguments.seeds.split("-"))
    failed = 0
    for seed in range(first, last + 1):
        result = run(seed)
        failed += bool(result.violations)
        for violation in result.violations:
            print(f"seed {seed}: {violation}", flush=True)
    print(f"{failed} of {last - first + 1} histories fail")
    return bool(failed)


if __name__ == "__main__":
    raise SystemExit(main())
