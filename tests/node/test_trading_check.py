"""What `--check` says of settings with which trading goes wrong, and that a node does not start with the worst."""

from pathlib import Path

import pytest

from ml4t_actor.nautilus.backtest import BacktestEngine, BacktestEngineConfig, LoggingConfig
from ml4t_actor.node import read_plan
from ml4t_actor.node.__main__ import main
from ml4t_actor.node.findings import FAIL, PASS, WARN, Finding
from ml4t_actor.node.trading_check import check_trading
from ml4t_actor.settings import LabelSettings
from ml4t_actor.strategy import EnrichedSignalStrategy
from tests.support.node_files import KEY, changed, node_config, write

LIVE = node_config("hyperliquid_testnet.json")
SANDBOX = node_config("hyperliquid_sandbox.json")
LIMITS = "strategies.0.config.limits"


def findings(folder: Path, raw: dict, *changes: tuple[str, object]) -> list[Finding]:
    for path, value in changes:
        raw = changed(raw, path, value)
    return check_trading(read_plan(write(folder, raw)))


def of(level: str, found: list[Finding]) -> list[str]:
    return [finding.message for finding in found if finding.level == level]


@pytest.mark.parametrize("raw", [LIVE, SANDBOX])
def test_what_is_shipped_has_nothing_to_say_against_it(tmp_path, raw):
    assert {finding.level for finding in findings(tmp_path, raw)} == {PASS}


def test_without_orders_there_is_nothing_to_check(tmp_path):
    assert findings(tmp_path, node_config("redis_node.json")) == []


@pytest.mark.parametrize(
    ("name", "fine", "extreme"),
    [
        ("max_leverage", 5.0, 50.0),
        ("max_position_fraction", 2.0, 2.1),
        ("stop_loss", 0.2, 0.9),
        ("max_daily_loss", 0.1, 1.0),
    ],
)
def test_a_limit_that_is_extreme_is_named(tmp_path, name, fine, extreme):
    assert of(WARN, findings(tmp_path, LIVE, (f"{LIMITS}.{name}", fine))) == []
    [message] = of(WARN, findings(tmp_path, LIVE, (f"{LIMITS}.{name}", extreme)))
    assert message.startswith(f"`limits.{name}` is {extreme:g}, more than {fine:g}")


@pytest.mark.parametrize(
    ("name", "value"), [("exit_on_signal", False), ("horizon_bars", 61), ("stop_barrier", 2.0)]
)
def test_a_strategy_that_trades_other_labels_than_the_actor_learns_is_named(tmp_path, name, value):
    path = f"strategies.0.config.labels.{name}"
    [message] = of(WARN, findings(tmp_path, LIVE, (path, value)))
    own = getattr(LabelSettings(), name)
    assert message.startswith(
        f"`labels.{name}` is {value} for the strategy and {own} for the actor: what is traded"
    )
    assert of(WARN, findings(tmp_path, LIVE, (path, value), (f"actors.0.config.labels.{name}", value))) == []


@pytest.mark.parametrize(
    ("risk_target", "fraction", "daily_loss", "words"),
    [
        (0.51, 1.0, 0.1, "51% a year, 2.7% a day, if they moved alike"),
        (1.0, 0.6, 0.1, "60% a year, 3.1% a day, if they moved alike"),
        (
            0.2,
            1.0,
            0.02,
            "1.0% a day, if they moved alike (`risk_target` 0.2, `fraction` 1): a day of twice that",
        ),
        (
            None,
            0.25,
            0.02,
            "a full size is 0.25 of equity in each of 3 instrument(s), however much they move",
        ),
    ],
)
def test_a_risk_that_is_extreme_is_named(tmp_path, risk_target, fraction, daily_loss, words):
    config = "strategies.0.config"
    daily = (f"{LIMITS}.max_daily_loss", daily_loss)
    fine = findings(
        tmp_path, LIVE, (f"{config}.risk_target", 0.5 / fraction), (f"{config}.fraction", fraction), daily
    )
    expected = [] if daily_loss == 0.1 else ["reaches `limits.max_daily_loss` 0.02"]
    assert [words in message for message, words in zip(of(WARN, fine), expected, strict=True)] == [
        True
    ] * len(expected)
    changes = (f"{config}.risk_target", risk_target), (f"{config}.fraction", fraction), daily
    [message] = of(WARN, findings(tmp_path, LIVE, *changes))
    assert words in message


def test_an_order_without_a_bound_in_money_is_named(tmp_path):
    [message] = of(WARN, findings(tmp_path, LIVE, (f"{LIMITS}.max_notional_per_order", ...)))
    assert "`limits.max_notional_per_order` is not set" in message


def test_the_risk_engines_notional_is_said_to_do_nothing(tmp_path):
    notional = {"BTC-USD-PERP.HYPERLIQUID": 1000}
    found = findings(tmp_path, LIVE, ("risk_engine.max_notional_per_order", notional))
    [finding] = [each for each in found if each.level == WARN]
    assert "does nothing" in finding.message
    assert "limits.max_notional_per_order" in finding.remedy


UNRECONCILED = [
    ("reconciliation", False),
    ("filter_position_reports", True),
    ("generate_missing_orders", False),
    ("reconciliation_instrument_ids", ["ETH-USD-PERP.HYPERLIQUID", "SOL-USD-PERP.HYPERLIQUID"]),
]


@pytest.mark.parametrize(("name", "value"), UNRECONCILED)
def test_a_node_that_would_not_know_of_its_positions_neither_passes_nor_starts(
    tmp_path, capfd, monkeypatch, name, value
):
    [message] = of(FAIL, findings(tmp_path, LIVE, (f"exec_engine.{name}", value)))
    assert f"`exec_engine.{name}`" in message
    assert "second time" in message
    monkeypatch.setenv("HYPERLIQUID_TESTNET_PK", KEY)
    assert main([str(write(tmp_path, changed(LIVE, f"exec_engine.{name}", value)))]) == 2
    assert f"`exec_engine.{name}`" in capfd.readouterr().err


def test_a_simulated_account_has_nothing_to_reconcile(tmp_path):
    assert of(FAIL, findings(tmp_path, SANDBOX, ("exec_engine.reconciliation", False))) == []


@pytest.mark.parametrize("name", ["open_check_interval_secs", "position_check_interval_secs"])
def test_what_would_take_simulated_orders_for_lost_is_refused(tmp_path, name):
    [message] = of(FAIL, findings(tmp_path, SANDBOX, (f"exec_engine.{name}", 5.0)))
    assert f"`exec_engine.{name}`" in message


def test_a_simulated_venue_must_be_the_one_that_is_traded(tmp_path):
    [message] = of(FAIL, findings(tmp_path, SANDBOX, ("exec_clients.HYPERLIQUID.config.venue", "BINANCE")))
    assert "BINANCE" in message
    assert "HYPERLIQUID" in message


@pytest.mark.parametrize("tag", ["007", None])
def test_strategies_are_named_as_nautilus_names_them(tmp_path, tag):
    raw = changed(LIVE, "strategies.0.config.order_id_tag", tag)
    [plan] = read_plan(write(tmp_path, raw)).strategies
    strategy = EnrichedSignalStrategy(plan.config)
    engine = BacktestEngine(BacktestEngineConfig(logging=LoggingConfig(bypass_logging=True)))
    try:
        engine.add_strategy(strategy)
        assert plan.name == str(strategy.id)
    finally:
        engine.dispose()
