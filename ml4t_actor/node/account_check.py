"""Whether an account, and the venue's terms, leave room for what is configured; and who else uses it."""

import math
import os
from collections.abc import Collection, Iterator, Mapping
from decimal import Decimal

from ml4t_actor.nautilus.model import InstrumentId
from ml4t_actor.nautilus.trading import Instrument
from ml4t_actor.node.account import AccountState, AssetTerms
from ml4t_actor.node.config import ClientPlan, NodePlan, StrategyPlan, is_simulated
from ml4t_actor.node.findings import FAIL, PASS, WARN, Finding
from ml4t_actor.node.own_orders import OwnOrders, read_own_orders
from ml4t_actor.node.venues import venue_of
from ml4t_actor.strategy.config import EnrichedSignalStrategyConfig
from ml4t_actor.strategy.journal.order_journal import JournalError
from ml4t_actor.strategy.risk import RiskLimits

# About bitcoin's: most of what is traded here moves more, and is traded smaller.
ANNUAL_VOLATILITY = 0.5


def check_accounts(plan: NodePlan, instruments: Mapping[InstrumentId, Instrument]) -> list[Finding]:
    """Return the findings about the accounts of the execution clients, as far as a venue can be asked here.

    Parameters
    ----------
    plan : NodePlan
        With the clients and the strategies.
    instruments : Mapping[InstrumentId, Instrument]
        All that were loaded.
    """
    findings: list[Finding] = []
    for client in plan.exec_clients:
        if is_simulated(client):
            findings += _check_balances(client, [instruments[n] for n in plan.traded_ids if n in instruments])
        venue = venue_of(client.config)
        if venue is None or any(not os.environ.get(name) for name in venue.key_names(client.config)):
            continue  # a key that is missing is reported
        traded = [instruments[name] for name in plan.traded_ids if name in instruments]
        try:
            state = venue.account_state(client.config, [str(each.raw_symbol) for each in traded])
        except Exception as e:  # of the network, or an answer that is not known
            name = venue.name_of(client.config)
            findings.append(
                Finding(WARN, "account", f"{name} does not say what is in it: {e}", "check the network")
            )
            continue
        if state is None:
            continue
        own = None
        try:
            # As the adapter names its account.
            own = read_own_orders(
                plan.strategies, f"{client.name.partition('-')[0]}-master", venue.venue_client_id
            )
        except JournalError as e:
            findings.append(Finding(WARN, "journal", str(e)))
        findings += check_account(state, plan.strategies, instruments, own)
    return findings


def check_account(
    state: AccountState,
    strategies: Collection[StrategyPlan],
    instruments: Mapping[InstrumentId, Instrument],
    own: OwnOrders | None,
) -> Iterator[Finding]:
    """Yield the findings about an account.

    Parameters
    ----------
    state : AccountState
        By the venue.
    strategies : collection of StrategyPlan
        All that trade on it.
    instruments : Mapping[InstrumentId, Instrument]
        Of the venue, those that are loaded.
    own : OwnOrders or None
        What is the strategies' own; None where that cannot be told, since a node is running.
    """
    yield _account_finding(state)
    symbols = {str(i.raw_symbol): i for i in instruments.values()}
    for strategy in strategies:
        for instrument_id in strategy.instrument_ids:
            instrument = instruments.get(instrument_id)
            terms = None if instrument is None else state.terms.get(str(instrument.raw_symbol))
            if instrument is not None and terms is not None:
                yield _terms_finding(instrument, terms)
                yield from _check_reach(strategy.config, instrument, terms, state.equity)
    yield from _check_positions(state, symbols, strategies, own)
    if own is not None:
        yield from _check_orders(state, symbols, own)


def _check_balances(client: ClientPlan, traded: Collection[Instrument]) -> Iterator[Finding]:
    """Check that a simulated account has the currency of profits: NautilusTrader drops losses where it does not."""
    balances = [str(balance) for balance in getattr(client.config, "starting_balances", ())]
    held = {balance.rpartition(" ")[2] for balance in balances}
    needed = {str(each.get_cost_currency()): str(each.id) for each in traded}
    for currency, name in needed.items():
        if currency not in held:
            yield Finding(
                FAIL,
                "sandbox",
                f"profits of {name} are booked in {currency}, of which the simulated account has none: its losses "
                "would be dropped",
                f"start with {currency} in `starting_balances`",
            )


def _account_finding(state: AccountState) -> Finding:
    paid = "received" if state.funding > 0 else "paid"
    message = (
        f"equity {_text(state.equity)} {state.currency}, {_text(state.withdrawable)} free; funding {paid} in the last "
        f"{state.funding_days} days: {_text(abs(state.funding))}"
    )
    if state.equity <= 0:
        return Finding(FAIL, "account", message, "deposit, or correct the account's address")
    return Finding(PASS, "account", message)


def _terms_finding(instrument: Instrument, terms: AssetTerms) -> Finding:
    least = instrument.min_notional
    return Finding(
        PASS,
        "terms",
        f"{instrument.id}: notional of an order at least {'any' if least is None else least}, price step "
        f"{instrument.price_increment}, size step {instrument.size_increment}, "
        f"{'isolated' if terms.isolated else 'cross'} margin at leverage {terms.leverage} of {terms.max_leverage}",
    )


def _check_reach(
    strategy: EnrichedSignalStrategyConfig, instrument: Instrument, terms: AssetTerms, equity: Decimal
) -> Iterator[Finding]:
    """Check that the limits leave room for an order, and that the venue leaves room for the limits."""
    limits = strategy.limits
    most, name = _largest_entry(strategy, equity)
    step = instrument.size_increment.as_decimal() * instrument.multiplier.as_decimal() * terms.price
    least = step if instrument.min_notional is None else max(step, instrument.min_notional.as_decimal())
    if 0 < most < least:
        yield Finding(
            FAIL,
            "limits",
            f"nothing can be opened in {instrument.id}: `{name}` allows {_text(most)}, the smallest order is "
            f"{_text(least)}",
            f"raise `{name}`, deposit, or leave the instrument out",
        )
    if most >= least and (at_risk := _full_size_at_risk(strategy, equity)) < least:
        yield Finding(
            WARN,
            "limits",
            f"little can be opened in {instrument.id}: at an annual volatility of {ANNUAL_VOLATILITY:.0%} "
            f"`risk_target` allows {_text(at_risk)}, the smallest order is {_text(least)}",
            "raise `risk_target`, deposit, or trade fewer instruments",
        )
    if limits.max_position_fraction > terms.leverage:
        yield Finding(
            WARN,
            "limits",
            f"`limits.max_position_fraction` {limits.max_position_fraction:g} cannot be reached in {instrument.id}: "
            f"its leverage is set to {terms.leverage} at the venue, which refuses what is beyond",
            "lower the limit, or set the leverage at the venue",
        )
    loss, room = math.expm1(limits.stop_loss), _room_to_liquidation(limits, terms)
    if loss >= room:
        yield Finding(
            FAIL,
            "limits",
            f"`limits.stop_loss` {limits.stop_loss:g} cannot work in {instrument.id}: "
            f"{'its position' if terms.isolated else 'an account at `max_leverage`'} is liquidated after a move of "
            f"about {max(room, 0.0):.1%}, before the stop at {loss:.1%}",
            "lower the stop or the leverage",
        )
    if limits.maintenance_margin < terms.maintenance_margin:
        yield Finding(
            WARN,
            "limits",
            f"`limits.maintenance_margin` {limits.maintenance_margin:g} is less than the venue's in {instrument.id}, "
            f"{terms.maintenance_margin:.4f}: liquidation is nearer than the strategy reckons with",
            "raise it",
        )
    if terms.price > 0 and limits.stop_loss * float(terms.price) < float(instrument.price_increment):
        yield Finding(
            FAIL,
            "limits",
            f"`limits.stop_loss` {limits.stop_loss:g} is less than one price step of {instrument.id}",
            "raise it",
        )


def _largest_entry(strategy: EnrichedSignalStrategyConfig, equity: Decimal) -> tuple[Decimal, str]:
    """Return the most notional that an entry can have, and which setting says so."""
    limits = strategy.limits
    bounds = {
        "limits.max_position_fraction": _exact(limits.max_position_fraction) * equity,
        "limits.max_leverage": _exact(limits.max_leverage) * equity,
    }
    if strategy.risk_target is None:
        bounds["fraction"] = _exact(strategy.fraction) * equity
    if limits.max_notional_per_order is not None:
        bounds["limits.max_notional_per_order"] = _exact(limits.max_notional_per_order)
    name = min(bounds, key=lambda each: bounds[each])
    return bounds[name], name


def _full_size_at_risk(strategy: EnrichedSignalStrategyConfig, equity: Decimal) -> Decimal:
    """Return what the risk target makes of a full size of an instrument of medium volatility."""
    if strategy.risk_target is None:
        return _exact(strategy.fraction) * equity
    share = _exact(strategy.risk_target) / len(strategy.bar_types)
    return _exact(strategy.fraction) * share / _exact(ANNUAL_VOLATILITY) * equity


def _room_to_liquidation(limits: RiskLimits, terms: AssetTerms) -> float:
    """Return how far the price may move against a position, as a fraction, until it is liquidated, about."""
    leverage = float(terms.leverage) if terms.isolated else min(limits.max_leverage, float(terms.leverage))
    return 1.0 / leverage - float(terms.maintenance_margin)


def _check_positions(
    state: AccountState,
    symbols: Mapping[str, Instrument],
    strategies: Collection[StrategyPlan],
    own: OwnOrders | None,
) -> Iterator[Finding]:
    traded = {name: s.config.adopt_positions for s in strategies for name in s.instrument_ids}
    for position in state.positions:
        instrument = symbols.get(position.symbol)
        name = position.symbol if instrument is None else str(instrument.id)
        held = (
            f"{name}: {position.quantity} at {position.entry_price}, funding paid {_text(position.funding)}"
        )
        if position.liquidation_price is not None:
            held += f", liquidated at {position.liquidation_price}"
        if instrument is None or instrument.id not in traded:
            yield Finding(
                WARN,
                "positions",
                f"{held}: not traded here, and counts against the account's limits",
                "close it, or use another account",
            )
        elif own is None:
            yield Finding(PASS, "positions", f"{held}: whose it is the running node knows")
        else:
            foreign = _foreign_part(position.quantity, own.held.get(name))
            yield _position_finding(held, foreign, adopted=traded[instrument.id])
    if not state.positions:
        yield Finding(PASS, "positions", "none")


def _position_finding(held: str, foreign: Decimal, *, adopted: bool) -> Finding:
    if foreign == 0:
        return Finding(PASS, "positions", f"{held}: the strategy's own")
    if adopted:
        return Finding(
            WARN,
            "positions",
            f"{held}: {foreign} of it is not the strategy's, which takes it over (`adopt_positions`)",
            "leave `adopt_positions` out if it is not to be closed",
        )
    return Finding(
        WARN,
        "positions",
        f"{held}: {foreign} of it is not the strategy's, held by hand or by another program; the instrument is not "
        "traded while that is so",
        "close it, use another account, or set `adopt_positions`",
    )


def _foreign_part(held: Decimal, own: tuple[Decimal, Decimal] | None) -> Decimal:
    """Return how much of a position own orders do not explain."""
    low, high = own or (Decimal(0), Decimal(0))
    return held - min(max(held, low), high)


def _check_orders(
    state: AccountState, symbols: Mapping[str, Instrument], own: OwnOrders
) -> Iterator[Finding]:
    foreign = []
    for order in state.orders:
        instrument = symbols.get(order.symbol)
        name = order.symbol if instrument is None else str(instrument.id)
        # Exits that were sent after a restart have ids that no journal has.
        is_exit = order.reduces and order.client_id is not None and any(own.held.get(name, ()))
        if order.client_id not in own.client_ids and not is_exit:
            foreign.append((name, order))
    for name, order in foreign:
        sender = "by hand" if order.client_id is None else "by another program"
        yield Finding(
            WARN,
            "orders",
            f"{name}: order {order.venue_id}, {order.quantity} at {order.price}, was sent {sender}",
            "cancel it, or use another account, if it is not to be filled beside the strategy's",
        )
    if not foreign:
        n = len(state.orders)
        yield Finding(PASS, "orders", f"{n} open, of the strategy" if n else "none open")


def _exact(value: float) -> Decimal:
    return Decimal(repr(value))


def _text(value: Decimal) -> str:
    return f"{float(value):,.2f}"
