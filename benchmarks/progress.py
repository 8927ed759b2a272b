"""How far a long simulation is, on one line of a terminal."""

import sys


def show(done: int, total: int) -> None:
    """Print `done` of `total` over itself; nothing where standard error is no terminal."""
    if sys.stderr.isatty():
        print(f"\r{done} of {total}", end="\n" if done == total else "", file=sys.stderr, flush=True)
