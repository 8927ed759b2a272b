"""The taker's side of a trade, as numbers."""

from ml4t_actor.market_data import BUYER, NO_AGGRESSOR, SELLER
from ml4t_actor.nautilus.model import AggressorSide

TAKER_SIDES = {
    AggressorSide.BUYER: BUYER,
    AggressorSide.SELLER: SELLER,
    AggressorSide.NO_AGGRESSOR: NO_AGGRESSOR,
}
