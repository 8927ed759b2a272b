"""Instruments, orders, positions, their events, and the base of strategies."""

from nautilus_trader.accounting.accounts.base import Account
from nautilus_trader.execution.reports import PositionStatusReport
from nautilus_trader.model.events import (
    AccountState,
    OrderAccepted,
    OrderCanceled,
    OrderCancelRejected,
    OrderDenied,
    OrderEvent,
    OrderExpired,
    OrderFilled,
    OrderRejected,
    PositionClosed,
    PositionEvent,
)
from nautilus_trader.model.instruments import Instrument
from nautilus_trader.model.orders import Order
from nautilus_trader.model.position import Position
from nautilus_trader.trading.config import StrategyConfig
from nautilus_trader.trading.strategy import Strategy

__all__ = [
    "Account",
    "AccountState",
    "Instrument",
    "Order",
    "OrderAccepted",
    "OrderCancelRejected",
    "OrderCanceled",
    "OrderDenied",
    "OrderEvent",
    "OrderExpired",
    "OrderFilled",
    "OrderRejected",
    "Position",
    "PositionClosed",
    "PositionEvent",
    "PositionStatusReport",
    "Strategy",
    "StrategyConfig",
]
