"""Run a recorded live session again in a backtest: ``python -m ml4t_actor.replay RECORDING``."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ml4t_actor.ledger import LedgerError
from ml4t_actor.recording import RecordingError
from ml4t_actor.replay.session import ReplayError, replay

_DESCRIPTION = """\
Run a recorded live session again in NautilusTrader's backtest engine, and compare every enriched signal with the one
that was published live: all fields but `latency_ns`, to the last bit. The status `late` counts as `ok`, since it is
about the machine.

A live actor records where its configuration names a folder in `tape_path`, one file per start.
"""
_EPILOGUE = """\
exit code: 0 if all are identical, 1 if some differ or there are none, 2 if the recording cannot be replayed

The recording names the classes of custom features, which are imported: replay recordings of your own only.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the verdict in the recording that the arguments name; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m ml4t_actor.replay",
        description=_DESCRIPTION,
        epilog=_EPILOGUE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "recording",
        type=Path,
        help="the file, such as recordings/TRADER-001.ML4TActor-1753000000000000000.tape",
    )
    parser.add_argument(
        "--models", type=Path, help="folder of the models that served (default: the session's `model_path`)"
    )
    parser.add_argument("--ledger", type=Path, help="the session's ledger, to be compared with too")
    options = parser.parse_args(arguments)
    try:
        report = replay(options.recording, models=options.models, ledger=options.ledger)
    except (RecordingError, ReplayError, LedgerError) as e:
        print(e, file=sys.stderr)
        return 2
    print(report.text())
    return 0 if report.is_identical else 1


if __name__ == "__main__":
    sys.exit(main())
