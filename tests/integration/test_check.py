"""`--check` of a node that was killed, and of one that runs, with a position of its own."""

from pathlib import Path

import pytest

from tests.support.live_node import instrument, rig

pytestmark = pytest.mark.slow


def lines(reported: str, subject: str) -> list[str]:
    return [line for line in reported.splitlines() if line.split()[1:2] == [subject]]


def test_what_the_strategy_has_opened_is_its_own_and_what_is_added_by_hand_is_not(tmp_path: Path) -> None:
    with rig(tmp_path / "rig", "--candle-ms", "300", "--virtual-candles", "1500", coins=("BTC",)) as node:
        node.started()
        node.open("BTC", 1)
        running = node.check()
        assert "is in use" in lines(running, "journal")[0]
        assert lines(running, "positions")[0].startswith("PASS")

        node.kill()
        killed = node.check()
        [position] = lines(killed, "positions")
        assert position.startswith("PASS")
        assert f"{instrument('BTC')}: {node.position('BTC'):g}" in position
        assert lines(killed, "orders") == ["PASS  orders          2 open, of the strategy"]

        node.venue.control("trade", coin="BTC", side="buy", size="0.5")
        [position] = lines(node.check(), "positions")
        assert position.startswith("WARN")
        assert "0.5 of it is not the strategy's" in position.replace("0.50000", "0.5")


def test_what_is_held_by_hand_is_in_the_metrics_of_the_node_until_it_is_closed(tmp_path: Path) -> None:
    with rig(tmp_path / "rig", "--candle-ms", "300", "--virtual-candles", "1500", coins=("BTC",)) as node:
        node.venue.control("trade", coin="BTC", side="buy", size="0.5")
        node.started()
        strategy = 'strategy="EnrichedSignalStrategy-001"'
        foreign = f'ml4t_foreign_position{{instrument="{instrument("BTC")}",{strategy}}}'
        node.until(lambda: foreign in node.metrics(), "the position in the metrics")
        assert node.metrics()[foreign] == 0.5
        assert node.metrics()[f"ml4t_strategy_healthy{{{strategy}}}"] == 0.0
        node.venue.control("trade", coin="BTC", side="sell", size="0.5")
        node.until(lambda: foreign not in node.metrics(), "its end in the metrics")
        assert node.metrics()[f"ml4t_strategy_healthy{{{strategy}}}"] == 1.0
