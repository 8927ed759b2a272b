"""What was decided about a signal, and what stopped it, in one word that can be counted."""

from decimal import Decimal
from typing import Literal, NamedTuple

from ml4t_actor.nautilus.model import InstrumentId

Cause = Literal[
    "",
    "odds",
    "model",
    "regime",
    "toxicity",
    "signal",
    "status",
    "position",
    "cooldown",
    "limits",
    "account",
    "market",
]
"""Why a decision opens nothing; empty where it opens, or where nothing was to be opened.

========  =========================================================================================================
odds      the trade cannot pay: its costs exceed what it wins (break-even 1), volatility is too small or not known
model     the model expects no net return, or gives no probability above break-even
regime    the cap on the regime weight left nothing
toxicity  the cap on toxicity left nothing
signal    its side or strength is none
status    its numbers are defaults, or its status may not open; or it was entered before, or is too old
position  one is held already, or another source's
cooldown  too soon after an entry or a signal against it
limits    a hard limit, or the least or largest order of the instrument
account   nothing is known of the account, or of an earlier entry
market    the quote is missing or too far from the close, or there is no room for stop and target
========  =========================================================================================================
"""


class SignalDecision(NamedTuple):
    """What a strategy has decided about a signal, published on the bus as ``decisions.<strategy id>``.

    A reversal is decided about twice: as such, and as an entry when the exit is filled. The last decision counts.

    Attributes
    ----------
    instrument_id : InstrumentId
    source, signal_id : str
        Of the signal.
    opened : bool
        Whether an entry was sent.
    cause : str
        What kept it from that, see `Cause`.
    target : Decimal
        Signed position that the order leads to.
    """

    instrument_id: InstrumentId
    source: str
    signal_id: str
    opened: bool
    cause: Cause
    target: Decimal


_OF_COUNT: dict[str, Cause] = {
    "no_answer": "status",
    "expired_here": "status",
    "entered_before": "status",
    "cooldown": "cooldown",
    "no_volatility": "odds",
    "daily_loss": "limits",
    "unsettled_entry": "account",
    "unknown_equity": "account",
}


def cause_of(count: str) -> Cause:
    """Return the cause of an entry that the strategy, and not its risk stage, refuses under this name in its counts."""
    return _OF_COUNT.get(count, "market")
