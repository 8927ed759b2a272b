"""What a live strategy asks of its node at the start, of real nodes that are not run."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from nautilus_trader.adapters.sandbox.config import SandboxExecutionClientConfig
from nautilus_trader.backtest.config import BacktestEngineConfig
from nautilus_trader.backtest.engine import BacktestEngine
from nautilus_trader.config import LiveExecEngineConfig, LoggingConfig, TradingNodeConfig
from nautilus_trader.live.node import TradingNode
from nautilus_trader.model.identifiers import AccountId, InstrumentId

from ml4t_actor.nautilus.live import node_of
from ml4t_actor.strategy.requirements import check_requirements, longest_stop_s

QUIET = LoggingConfig(log_level="ERROR", log_colors=False)
BTC, ETH = (InstrumentId.from_str(f"{coin}-USD-PERP.HYPERLIQUID") for coin in ("BTC", "ETH"))
CLIENTS = {"HYPERLIQUID": SandboxExecutionClientConfig(venue="HYPERLIQUID", starting_balances=["1 USD"])}
TIMEOUT_S = 4.0


@contextmanager
def node(exec_clients: dict[str, Any] = CLIENTS, **config: Any) -> Iterator[TradingNode]:
    loop = asyncio.new_event_loop()
    built = TradingNode(TradingNodeConfig(logging=QUIET, exec_clients=exec_clients, **config), loop=loop)
    try:
        yield built
    finally:
        built.kernel.dispose()
        loop.close()


def check(
    node: TradingNode, *, account: str | None = "HYPERLIQUID-master", awaited: bool = False
) -> list[str]:
    """Return what is warned of."""
    warnings: list[str] = []
    held = None if account is None else SimpleNamespace(calculate_account_state=False, id=AccountId(account))
    strategy = SimpleNamespace(
        id="Mine-001",
        msgbus=node.kernel.msgbus,
        portfolio=SimpleNamespace(account=lambda venue: held),
        config=SimpleNamespace(order_timeout=TIMEOUT_S),
        log=SimpleNamespace(warning=warnings.append),
    )
    check_requirements(strategy, [BTC, ETH], awaited_at_stop=awaited)
    return warnings


FAULTS = {
    "reconciliation": False,
    "filter_position_reports": True,
    "generate_missing_orders": False,
    "reconciliation_instrument_ids": [BTC],
}


@pytest.mark.parametrize("account", ["HYPERLIQUID-master", None])
@pytest.mark.parametrize("name", FAULTS)
def test_a_node_that_does_not_learn_of_its_positions_is_refused_by_name(name, account):
    engine = LiveExecEngineConfig(**{name: FAULTS[name]})
    with node(exec_engine=engine) as faulty, pytest.raises(RuntimeError) as raised:
        check(faulty, account=account)
    assert "Mine-001 does not trade in a node that does not learn of its positions" in str(raised.value)
    assert f"`exec_engine.{name}` " in str(raised.value)
    assert [
        other for other in FAULTS if other != name and f"`exec_engine.{other}`" in str(raised.value)
    ] == []


def test_nothing_is_asked_where_no_order_leaves_the_node():
    engine = LiveExecEngineConfig(reconciliation=False)
    with node(exec_engine=engine) as simulated:
        assert check(simulated, account="HYPERLIQUID-001") == []
    with node(exec_clients={}, exec_engine=engine) as data_only:
        assert check(data_only, account=None) == []


@pytest.mark.parametrize(("post_stop_s", "warned"), [(0.2, True), (17.9, True), (18.0, False), (60.0, False)])
def test_a_node_that_would_disconnect_before_the_stop_is_over_is_warned_of(post_stop_s, warned):
    assert longest_stop_s(TIMEOUT_S) == 18.0  # twice the timeout, and ten seconds
    with node(timeout_post_stop=post_stop_s) as real:
        warnings = check(real)
        assert check(real, awaited=True) == []
    assert len(warnings) == warned
    if warned:
        assert f"disconnects {post_stop_s:g} s after a stop" in warnings[0]
        assert "set `timeout_post_stop` to 18," in warnings[0]


def test_a_backtest_has_no_node():
    engine = BacktestEngine(BacktestEngineConfig(logging=QUIET))
    try:
        assert node_of(engine.kernel.msgbus) is None
    finally:
        engine.dispose()
