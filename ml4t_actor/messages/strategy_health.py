"""What the strategy reports of itself while it runs: `StrategyHealth`."""

from collections.abc import Callable
from decimal import Decimal

import msgspec

from ml4t_actor.messages.fields import flag, integer, message, text
from ml4t_actor.messages.health import PROBLEMS_LENGTH_MAX
from ml4t_actor.nautilus.custom_data import Data
from ml4t_actor.settings import refused

NAMES_LENGTH_MAX = 16_384
"""Longest `foreign_positions` and `unsettled_entries` of a `StrategyHealth`, in characters."""

_decode_quantities = msgspec.json.Decoder(dict[str, Decimal]).decode
_decode_instruments = msgspec.json.Decoder(dict[str, str]).decode


@message
class StrategyHealth(Data):  # type: ignore[misc]  # Nautilus's compiled base has no stubs
    """How the strategy is, published live: at once when it has changed, and each ten seconds.

    Every field is a bool or a string, so that it survives msgpack, JSON and the catalog.

    Parameters
    ----------
    strategy_id : str
        Such as ``EnrichedSignalStrategy-000``.
    foreign_positions : str
        Instruments that are left alone, since the venue's position is not what own orders were filled for, as JSON:
        ``{"BTC-USD-PERP.HYPERLIQUID": "0.1"}``, the venue's signed quantity less our own; see `foreign_by_instrument`.
    unsettled_entries : str
        Entries of an earlier life of which it is not known what became, so that nothing is entered there, as JSON:
        ``{"<client order id>": "BTC-USD-PERP.HYPERLIQUID"}``; see `unsettled_by_order`.
    ok : bool
        Whether nothing is wrong.
    problems : str
        What is wrong and what to do about it, joined by "; ". "" where, and only where, `ok`.
    ts_event : int, default 0
        When it held, UNIX nanoseconds.
    ts_init : int, default 0
        When this object was made, UNIX nanoseconds.

    Raises
    ------
    ValueError
        If a value breaks its rule.
    """

    strategy_id: str
    foreign_positions: str
    unsettled_entries: str
    ok: bool
    problems: str

    def __init__(
        self,
        *,
        strategy_id: str,
        foreign_positions: str,
        unsettled_entries: str,
        ok: bool,
        problems: str,
        ts_event: int = 0,
        ts_init: int = 0,
    ) -> None:
        fields = self.__dict__  # the class is frozen: setattr raises
        fields["strategy_id"] = text("strategy_id", strategy_id)
        fields["foreign_positions"] = _json("foreign_positions", foreign_positions, _decode_quantities)
        fields["unsettled_entries"] = _json("unsettled_entries", unsettled_entries, _decode_instruments)
        fields["ok"] = flag("ok", ok)
        fields["problems"] = text("problems", problems, 0, PROBLEMS_LENGTH_MAX)
        if fields["ok"] != (not fields["problems"]):
            raise refused("ok", ok, f"must be {not problems}, since `problems` is {problems!r}")
        fields["_ts_event"] = integer("ts_event", ts_event)
        fields["_ts_init"] = integer("ts_init", ts_init)

    @property
    def foreign_by_instrument(self) -> dict[str, Decimal]:
        """How much of the venue's position is not our own, by instrument that is left alone."""
        return _decode_quantities(self.foreign_positions)

    @property
    def unsettled_by_order(self) -> dict[str, str]:
        """The instrument of each unsettled entry, by client order id."""
        return _decode_instruments(self.unsettled_entries)

    def __hash__(self) -> int:
        return hash((self.strategy_id, self._ts_event))


def _json(name: str, value: object, decode: Callable[[str], object]) -> str:
    checked = text(name, value, 2, NAMES_LENGTH_MAX)
    try:
        decode(checked)
    except (msgspec.MsgspecError, RecursionError) as e:
        raise refused(name, value, f"must be JSON of texts by text ({e})") from None
    return checked
