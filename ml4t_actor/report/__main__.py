"""Draw what the learning loop did, from its ledger: ``python -m ml4t_actor.report LEDGER``."""

import argparse
import sys
from pathlib import Path

from ml4t_actor.ledger import LedgerError
from ml4t_actor.report.timeline import read_timeline, timeline_text, write_timeline


def main() -> None:
    """Print the timeline of a ledger, and write it as a page."""
    parser = argparse.ArgumentParser(prog="python -m ml4t_actor.report", description=__doc__)
    parser.add_argument("ledger", type=Path, help="the SQLite file, such as models/ledger.sqlite")
    parser.add_argument("--out", type=Path, default=Path("timeline.html"), help="the page to write")
    arguments = parser.parse_args()
    try:
        timeline = read_timeline(arguments.ledger)
    except LedgerError as e:
        sys.exit(str(e))
    print(timeline_text(timeline))
    try:
        print(f"page: {write_timeline(timeline, arguments.out, title=str(arguments.ledger))}")
    except ImportError as e:
        print(f"no page: {e}", file=sys.stderr)


if __name__ == "__main__":
    main()
