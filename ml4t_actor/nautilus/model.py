"""Market data, identifiers, enumerations and numbers of NautilusTrader."""

from nautilus_trader.model.data import Bar, BarType, CustomData, DataType, QuoteTick, TradeTick
from nautilus_trader.model.enums import (
    AccountType,
    AggregationSource,
    AggressorSide,
    OmsType,
    OrderSide,
    OrderStatus,
    OrderType,
    PositionSide,
    TimeInForce,
)
from nautilus_trader.model.identifiers import (
    AccountId,
    ClientId,
    Identifier,
    InstrumentId,
    StrategyId,
    Symbol,
    TradeId,
    TraderId,
    Venue,
)
from nautilus_trader.model.objects import FIXED_PRECISION, Currency, Money, Price, Quantity

__all__ = [
    "FIXED_PRECISION",
    "AccountId",
    "AccountType",
    "AggregationSource",
    "AggressorSide",
    "Bar",
    "BarType",
    "ClientId",
    "Currency",
    "CustomData",
    "DataType",
    "Identifier",
    "InstrumentId",
    "Money",
    "OmsType",
    "OrderSide",
    "OrderStatus",
    "OrderType",
    "PositionSide",
    "Price",
    "Quantity",
    "QuoteTick",
    "StrategyId",
    "Symbol",
    "TimeInForce",
    "TradeId",
    "TradeTick",
    "TraderId",
    "Venue",
]
