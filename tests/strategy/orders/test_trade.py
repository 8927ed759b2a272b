"""The phases of a trade, told apart by its orders and its position."""

import itertools
from dataclasses import dataclass
from decimal import Decimal

import pytest

from ml4t_actor.nautilus.model import InstrumentId
from ml4t_actor.strategy.orders.trade import Phase, Trade

BTC = InstrumentId.from_str("BTC-USD-PERP.HYPERLIQUID")
FLAT, HELD = Decimal(0), Decimal("0.7")


@dataclass
class Quantity:
    value: str

    def as_decimal(self) -> Decimal:
        return Decimal(self.value)


@dataclass
class OrderStub:
    """As much of an order as its phase depends on: on its way, resting at the venue, or closed."""

    state: str
    quantity: Quantity
    filled_qty: Quantity

    @property
    def is_open(self) -> bool:
        return self.state == "resting"

    @property
    def is_closed(self) -> bool:
        return self.state == "closed"


def order(state: str, quantity: str = "0.7", filled: str = "0") -> OrderStub:
    return OrderStub(state, Quantity(quantity), Quantity(filled))


def trade(**changes) -> Trade:
    return Trade(BTC, 0, **changes)


FILLED = {"entry": order("closed"), "entry_done": True}
EXITS = {"stop": order("resting"), "target": order("resting")}
GONE = {"stop": order("closed"), "target": order("closed")}
LIVES = {
    "an entry that is sent": (trade(entry=order("sent")), FLAT, Phase.ENTERING),
    "an entry that is filled in part": (trade(entry=order("resting")), HELD, Phase.ENTERING),
    "a part whose rest was never reported": (
        trade(entry=order("resting"), entry_done=True),
        HELD,
        Phase.PROTECTING,
    ),
    "an entry that was refused": (trade(entry=order("closed")), FLAT, Phase.DONE),
    "an entry that was not answered": (
        trade(entry=order("sent"), entry_done=True, unwinding=True),
        FLAT,
        Phase.UNWINDING,
    ),
    "an entry that was filled without an answer": (trade(**FILLED, unwinding=True), HELD, Phase.UNWINDING),
    "a position before its stop": (trade(**FILLED), HELD, Phase.PROTECTING),
    "a stop on its way": (trade(**FILLED, stop=order("sent")), HELD, Phase.PROTECTING),
    "a stop that was cancelled": (trade(**FILLED, stop=order("closed")), HELD, Phase.PROTECTING),
    "a stop for a part": (trade(**FILLED, stop=order("resting", "0.6")), HELD, Phase.PROTECTING),
    "a stop of which a part is filled": (
        trade(**FILLED, stop=order("resting", filled="0.1")),
        HELD,
        Phase.PROTECTING,
    ),
    "a stop that rests": (trade(**FILLED, stop=order("resting")), HELD, Phase.PROTECTED),
    "stop and target that rest": (trade(**FILLED, **EXITS), HELD, Phase.PROTECTED),
    "a position that was resumed": (trade(entry_done=True, **EXITS), HELD, Phase.PROTECTED),
    "an exit that is sent": (
        trade(**FILLED, **EXITS, exit_decided=True, closing=[order("sent")]),
        HELD,
        Phase.EXITING,
    ),
    "a reduction that is sent": (trade(**FILLED, **EXITS, closing=[order("sent")]), HELD, Phase.EXITING),
    "a reduction that is filled": (
        trade(**FILLED, **EXITS, closing=[order("closed")]),
        HELD,
        Phase.PROTECTED,
    ),
    "an exit that was refused": (
        trade(**FILLED, **EXITS, exit_decided=True, closing=[order("closed")]),
        HELD,
        Phase.EXIT_DUE,
    ),
    "an exit that the venue has no position for": (
        trade(**FILLED, **EXITS, exit_decided=True, closing=[order("closed")], disputed_ns=5),
        HELD,
        Phase.DISPUTED,
    ),
    "a fill that settles the dispute": (
        trade(**FILLED, **EXITS, exit_decided=True, closing=[order("closed")], disputed_ns=5),
        FLAT,
        Phase.CLEARING,
    ),
    "a target that is filled": (
        trade(**FILLED, stop=order("resting"), target=order("closed"), clearing=True),
        FLAT,
        Phase.CLEARING,
    ),
    "exits that are cancelled": (trade(**FILLED, **GONE, clearing=True), FLAT, Phase.DONE),
}


@pytest.mark.parametrize(("life", "held", "phase"), LIVES.values(), ids=LIVES.keys())
def test_orders_and_position_say_the_phase(life, held, phase):
    assert life.phase(held) is phase


def test_every_phase_is_met():
    assert {phase for _, _, phase in LIVES.values()} == set(Phase)


def test_a_signal_waits_in_the_phases_that_end_by_an_order_and_in_no_other():
    """Over all combinations that a live trade can be in, restated by what is on its way."""
    states = [None, *(order(state) for state in ("sent", "resting", "closed"))]
    closing = [[], [order("sent")], [order("closed")]]
    flags = [False, True]
    combinations = itertools.product(states, states, closing, flags, flags, flags, flags, [FLAT, HELD])
    waiting = {Phase.ENTERING, Phase.UNWINDING, Phase.EXITING}
    going_on = {Phase.PROTECTING, Phase.PROTECTED, Phase.EXIT_DUE}
    for entry, stop, closing_orders, done, unwinding, clearing, decided, held in combinations:
        life = trade(
            entry=entry, stop=stop, closing=closing_orders, entry_done=done, unwinding=unwinding,
            clearing=clearing, exit_decided=decided,
        )  # fmt: skip
        phase = life.phase(held)
        if phase in waiting | going_on:
            assert life.in_flight == (phase in waiting), life
        elif phase is Phase.CLEARING:
            assert life.in_flight == (clearing or life.is_closing), life
        if phase in {Phase.CLEARING, Phase.DONE}:
            assert held == FLAT
