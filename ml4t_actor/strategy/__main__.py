"""Show a journal, and settle entries by hand: ``python -m ml4t_actor.strategy models/orders-....sqlite``.

It shows the entries whose end is not known, the positions that are to be closed, and the day of each account: its
opening equity, what was transferred since then, its funding, and what nobody can explain.

Settling is for venues that nothing here can ask what became of an order: look it up there, see that it cannot be filled
any more, and settle it. The node must not run meanwhile.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ml4t_actor.nautilus.components import unix_nanos_to_iso8601
from ml4t_actor.strategy.account.day_records import day_text
from ml4t_actor.strategy.journal.order_journal import JournalError
from ml4t_actor.strategy.journal.sqlite_journal import SqliteJournal

_TIMEOUT_S = 10.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what is not done, after settling what is named; return the exit code, 2 where nothing could be done."""
    parser = argparse.ArgumentParser(
        prog="python -m ml4t_actor.strategy",
        description="Show what a strategy's journal holds for its next start.",
    )
    parser.add_argument("journal", type=Path, help="the file, `journal_path` of the strategy")
    parser.add_argument(
        "--settle",
        metavar="ORDER_ID",
        action="append",
        default=[],
        help="an entry that, as you know from the venue, cannot be filled any more; may be repeated",
    )
    options = parser.parse_args(arguments)
    if not options.journal.is_file():
        print(f"there is no file {options.journal}", file=sys.stderr)
        return 2
    try:
        journal = SqliteJournal(
            options.journal, lambda call: call(), lambda text: print(text, file=sys.stderr)
        )
    except JournalError as e:
        print(e, file=sys.stderr)
        return 2
    unknown = set(options.settle) - {intent.order_id for intent in journal.open_intents()}
    for order_id in options.settle:
        journal.end_entry(order_id)
    for intent in journal.open_intents():
        side = "buy" if intent.side > 0 else "sell"
        print(
            f"{intent.order_id}  {unix_nanos_to_iso8601(intent.ts)}  {side} {intent.quantity} {intent.instrument_id}, "
            f"for {intent.signal_id} of {intent.source}: its end is not known"
        )
    for instrument_id in journal.exits_wanted():
        print(f"{instrument_id}: its position is to be closed")
    for day in journal.days():
        print(day_text(day))
    for order_id in sorted(unknown):
        print(f"{order_id} is no entry whose end is not known", file=sys.stderr)
    return 0 if journal.close(_TIMEOUT_S) and not unknown else 2


if __name__ == "__main__":
    sys.exit(main())
