"""Print how the models of a ledger did: ``python -m ml4t_actor.ledger ledger.sqlite --instrument ETH``."""

import argparse
import sys
from collections.abc import Sequence

from ml4t_actor.ledger.reader import GROUPS, LedgerReader
from ml4t_actor.ledger.schema import LedgerError


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table that the arguments ask for; return the exit code, 2 if the file or an argument is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m ml4t_actor.ledger", description="How the models of a ledger did."
    )
    parser.add_argument("file", help="the SQLite file that the actor writes")
    parser.add_argument("--version", help="model version, or its beginning")
    parser.add_argument("--instrument", help="instrument, or its beginning")
    parser.add_argument("--source", help="source of the signals, or its beginning")
    parser.add_argument("--start", help="first time, UTC")
    parser.add_argument("--end", help="time after the last, UTC")
    parser.add_argument("--by", nargs="*", choices=GROUPS, default=["model_version", "instrument_id"])
    options = vars(parser.parse_args(arguments))
    try:
        table = LedgerReader(options.pop("file")).performance(**options)
    except (LedgerError, ValueError) as e:
        print(e, file=sys.stderr)
        return 2
    if table.empty:
        print("no signals")
        return 0
    print(table.to_string(index=False, na_rep="-", float_format="{:.4f}".format))
    return 0


if __name__ == "__main__":
    sys.exit(main())
