"""Settings with which trading would double positions or risk too much, found without asking a venue."""

import math
from collections.abc import Iterator

import msgspec

from ml4t_actor.node.config import NodePlan, is_simulated
from ml4t_actor.node.findings import FAIL, PASS, WARN, Finding
from ml4t_actor.settings import LabelSettings
from ml4t_actor.strategy.config import EnrichedSignalStrategyConfig
from ml4t_actor.strategy.requirements import reconciliation_faults
from ml4t_actor.strategy.risk import RiskLimits

# Above these a limit is called extreme; each is several times what the shipped configs have.
EXTREME_LEVERAGE = 5.0
EXTREME_POSITION_FRACTION = 2.0
EXTREME_DAILY_LOSS = 0.1
EXTREME_STOP_LOSS = 0.2
EXTREME_RISK_TARGET = 0.5

_EXTREMES = {
    "max_leverage": EXTREME_LEVERAGE,
    "max_position_fraction": EXTREME_POSITION_FRACTION,
    "max_daily_loss": EXTREME_DAILY_LOSS,
    "stop_loss": EXTREME_STOP_LOSS,
}


def check_trading(plan: NodePlan) -> list[Finding]:
    """Return the findings about reconciliation, the risk engine and the limits of the strategies; [] without orders.

    A FAIL among them keeps the node from starting, too.
    """
    if not plan.exec_clients:
        return []
    findings = [*_check_reconciliation(plan), *_check_simulation(plan), *_check_risk_engine(plan)]
    for strategy in plan.strategies:
        findings += [_risk_finding(strategy.config), *_check_limits(strategy.config.limits)]
        findings += _check_labels(strategy.config.labels, plan)
    return findings


def _check_reconciliation(plan: NodePlan) -> Iterator[Finding]:
    """Check that a node learns at its start of what it holds: else it opens it a second time."""
    if all(is_simulated(client) for client in plan.exec_clients):
        return
    faults = reconciliation_faults(plan.config.exec_engine, plan.traded_ids)
    doubles = "a restart would not know of its positions, and open them a second time"
    for fault, remedy in faults:
        yield Finding(FAIL, "reconciliation", f"{fault}: {doubles}", remedy)
    if not faults:
        yield Finding(PASS, "reconciliation", "positions and orders are reconciled at the start")


def _check_simulation(plan: NodePlan) -> Iterator[Finding]:
    """Check what Nautilus's sandbox client cannot do."""
    simulated = [client for client in plan.exec_clients if is_simulated(client)]
    if not simulated:
        return
    engine = plan.config.exec_engine
    for name in ("open_check_interval_secs", "position_check_interval_secs"):
        if getattr(engine, name) is not None:
            yield Finding(
                FAIL,
                "sandbox",
                f"`exec_engine.{name}` is set, and the simulated venue reports neither orders nor positions: they "
                "would be taken for lost",
                "leave it out",
            )
    venues = {str(name.venue) for name in plan.traded_ids}
    for client in simulated:
        venue = getattr(client.config, "venue", "")
        if venues and venue not in venues:
            yield Finding(
                FAIL,
                "sandbox",
                f"client {client.name} simulates {venue}, and traded are instruments of {', '.join(sorted(venues))}",
                "correct `venue`",
            )
        else:
            balances = ", ".join(getattr(client.config, "starting_balances", ()))
            yield Finding(
                PASS,
                "sandbox",
                f"orders for {venue} are simulated, from {balances} on at each start, without fees and funding",
            )


def _check_risk_engine(plan: NodePlan) -> Iterator[Finding]:
    engine = plan.config.risk_engine
    if engine.bypass:
        yield Finding(WARN, "limits", "`risk_engine.bypass` is true: no order is checked", "leave it out")
    if engine.max_notional_per_order:
        yield Finding(
            WARN,
            "limits",
            "`risk_engine.max_notional_per_order` does nothing: NautilusTrader skips it for margin accounts, as all of "
            "Hyperliquid's are",
            "set `limits.max_notional_per_order` of the strategy",
        )


def _check_labels(labels: LabelSettings, plan: NodePlan) -> Iterator[Finding]:
    """Check that a strategy trades what models are trained on: a bundle is held against the actor's labels only."""
    for actor in plan.actors:
        differing = {
            name: f"`labels.{name}` is {getattr(labels, name)} for the strategy and {value} for the actor"
            for name, value in msgspec.structs.asdict(actor.labels).items()
            if getattr(labels, name) != value
        }
        if differing:
            yield Finding(
                WARN,
                "labels",
                f"{'; '.join(differing.values())}: what is traded is not what confidences are about",
                "give both the labels that the model was trained with",
            )


def _risk_finding(config: EnrichedSignalStrategyConfig) -> Finding:
    """Return what a size of 1.0 means, and whether that is extreme."""
    target = config.risk_target
    if target is None:
        return Finding(
            WARN,
            "risk",
            f"a full size is {config.fraction:g} of equity in each of {len(config.bar_types)} instrument(s), however "
            "much they move: `risk_target` is null",
            "set it to the annual volatility that equity may have, or leave it out",
        )
    daily, limit = target * config.fraction / math.sqrt(365.0), config.limits.max_daily_loss
    message = (
        f"all instruments in full would move equity by {target * config.fraction:.0%} a year, {daily:.1%} a day, if "
        f"they moved alike (`risk_target` {target:g}, `fraction` {config.fraction:g})"
    )
    if target * config.fraction > EXTREME_RISK_TARGET:
        return Finding(
            WARN, "risk", f"{message}: more than {EXTREME_RISK_TARGET:.0%}", "lower it, unless you mean it"
        )
    if 2.0 * daily > limit:
        return Finding(
            WARN,
            "risk",
            f"{message}: a day of twice that reaches `limits.max_daily_loss` {limit:g}, which happens to one in forty",
            "lower `risk_target`, or raise the limit",
        )
    return Finding(PASS, "risk", message)


def _check_limits(limits: RiskLimits) -> Iterator[Finding]:
    extreme = False
    for name, most in _EXTREMES.items():
        value = getattr(limits, name)
        if value > most:
            extreme = True
            yield Finding(
                WARN,
                "limits",
                f"`limits.{name}` is {value:g}, more than {most:g}: {_consequence(name, value)}",
                "lower it, unless you mean it",
            )
    if limits.max_notional_per_order is None:
        extreme = True
        yield Finding(
            WARN,
            "limits",
            "no order is bounded in money: `limits.max_notional_per_order` is not set",
            "set it to the largest entry that you mean to make",
        )
    if not extreme:
        values = ", ".join(f"{name} {getattr(limits, name):g}" for name in _EXTREMES)
        yield Finding(PASS, "limits", f"{values}, max_notional_per_order {limits.max_notional_per_order:g}")


def _consequence(name: str, value: float) -> str:
    if name in ("max_leverage", "max_position_fraction"):
        return f"prices that move {1.0 / value:.1%} against it cost all equity"
    if name == "max_daily_loss":
        return f"{min(value, 1.0):.0%} of equity may be lost in a day"
    return "a position is held that far against it"
