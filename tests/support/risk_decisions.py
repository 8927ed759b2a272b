"""One decision of the risk stage, with everything at a default."""

from decimal import Decimal
from types import SimpleNamespace

from ml4t_actor.strategy.risk import AccountView, InstrumentView, PositionView, RiskLimits, RiskStage
from ml4t_actor.strategy.sizing import IntegratedSizer

SURE = {
    "signal": 1,
    "strength": 1.0,
    "meta_confidence": 1.0,
    "regime_weight": 1.0,
    "toxicity": 0.0,
    "status": "ok",
}
STEP = Decimal("0.001")
HALF = {"expected_return": 5.0, "volatility": 0.01}  # half of what a full size is expected to earn


def enrich(signal=1, **changes):
    return SimpleNamespace(**{**SURE, "signal": signal, **changes})


def account(equity=1_000.0, day_open_equity=1_000.0, gross_notional=0.0, **changes):
    return AccountView(equity, day_open_equity, gross_notional, **changes)


def held(quantity, entry_price=100.0):
    return PositionView(quantity, entry_price)


def instrument(price=100.0, size_increment=STEP, **changes):
    return InstrumentView(price, size_increment, **changes)


def decide(
    signal=1,
    acc=None,
    position=None,
    inst=None,
    limits=None,
    sizer=None,
    loss_at_stop=None,
    full_size=1.0,
    **enriched,
):
    stage = RiskStage(limits or RiskLimits(), sizer or IntegratedSizer())
    return stage.execute(
        enrich(signal, **enriched),
        acc or account(),
        position,
        inst or instrument(),
        loss_at_stop=loss_at_stop,
        full_size=full_size,
    )


class Alpha:
    """The seed's form: the alpha's output carries what the meta-model says of it."""

    def __init__(self, meta_output, **fields):
        self.meta_output = meta_output
        self.__dict__.update(fields)
