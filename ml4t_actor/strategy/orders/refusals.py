"""What the reasons of refused orders mean, in the words of each venue."""

import re

# What Nautilus's live engine says of an order that the venue did not answer in time.
UNANSWERED = "UNKNOWN"

# Only the letters, in lower case: venues differ in hyphens, underscores and quotes. What each says of an order that
# only reduces, where there is nothing to reduce; from memory, neither looked up nor seen at the venues themselves.
_NOTHING_TO_REDUCE = (
    "reduceonlyorderwouldincreaseposition",  # Hyperliquid, and Nautilus's own risk engine
    "wouldhaveincreasedposition",  # Nautilus's simulated venue
    "reduceonlyorderisrejected",  # Binance
    "currentpositioniszero",  # Bybit
    "reduceonlyrulenotsatisfied",  # Bybit
    "reduceonlyordershouldnotincrease",  # Bybit
    "donthaveanypositions",  # OKX
    "wouldnotreduceposition",  # Kraken
    "invalidreduceonlyorder",  # Deribit
    "execinstofreduceonly",  # BitMEX
    "reduceonlybutposition",  # dYdX
    "nopositiontoreduce",
    "nopositiontoclose",
)


def denies_position(reason: str) -> bool:
    """Return whether a venue refused to close, since it has nothing to be closed.

    Examples
    --------
    >>> denies_position("Reduce only order would increase position. asset=0")
    True
    >>> denies_position("{'code': -2022, 'msg': 'ReduceOnly Order is rejected.'}")
    True
    >>> denies_position("Too many orders.")
    False
    """
    letters = re.sub(r"[^a-z]", "", reason.lower())
    return any(words in letters for words in _NOTHING_TO_REDUCE)
