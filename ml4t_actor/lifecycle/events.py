"""What the ledger's events say of the models: which served, since when, and what was concluded."""

from collections.abc import Sequence

from ml4t_actor.ledger.queries import LedgerEvent
from ml4t_actor.messages import Action

SERVING = "serving"  # a model that nothing but a start brought in
TRIGGER = "trigger"

_CHANGES = frozenset({Action.PROMOTED, Action.RETIRED, Action.SWAPPED, Action.ROLLED_BACK})
_CONCLUSIONS = frozenset({Action.PROMOTED, Action.RETIRED, Action.REJECTED, Action.FAILED})

Events = Sequence[LedgerEvent]


def last_change(events: Events) -> LedgerEvent | None:
    """Return the last event by which another model, or none, came to serve."""
    return next((event for event in reversed(events) if event["kind"] in _CHANGES), None)


def serving_since_ns(events: Events, version: str) -> int | None:
    """Return when `version` last began to serve, UNIX nanoseconds; None if no event says so."""
    began = (
        e["ts"] for e in reversed(events) if e["kind"] in (SERVING, *_CHANGES) and e["version"] == version
    )
    return next(began, None)


def last_concluded_ns(events: Events) -> int:
    """Return when the last retraining that came to a conclusion was requested, UNIX nanoseconds; 0 if none did."""
    requested_ns = concluded_ns = 0
    for event in events:
        if event["kind"] == TRIGGER:
            requested_ns = event["ts"]
        elif event["kind"] in _CONCLUSIONS:
            concluded_ns = requested_ns
    return concluded_ns


def are_copies(version: str, other: str) -> bool:
    """Return whether two versions are one bundle: the store gives what it stores again a new number.

    Examples
    --------
    >>> are_copies("v000003-0123456789ab", "v000009-0123456789ab")
    True
    >>> are_copies("v000003-0123456789ab", "v000003-ba9876543210")
    False
    """
    return version == other or ("-" in version and version.partition("-")[2] == other.partition("-")[2])
