"""What makes a class a message that NautilusTrader carries, stores and reads again."""

from nautilus_trader.core.data import Data
from nautilus_trader.model.custom import customdataclass
from nautilus_trader.serialization.arrow.serializer import register_arrow

__all__ = [
    "Data",
    "customdataclass",
    "register_arrow",
]
