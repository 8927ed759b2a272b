"""The main job end to end, on a small synthetic market: the result says what happened, and the same again."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest

from backtests.market import Market, load_markets
from backtests.run import run_backtest
from ml4t_actor.report import result_json, result_text
from tests.support.paths import ROOT


@pytest.fixture(scope="module")
def markets() -> list[Market]:
    return [
        dataclasses.replace(market, bars=market.bars[:9_000])
        for market in load_markets("hyperliquid_5m", synthetic=True)[:2]
    ]


@pytest.fixture(scope="module")
def result(markets, tmp_path_factory):
    return run_backtest("hyperliquid_5m", markets, "mean_reversion", tmp_path_factory.mktemp("out"))


def test_every_signal_is_accounted_for(result):
    assert result.signals > 300
    assert sum(result.statuses.values()) == result.signals
    assert result.statuses["ok"] > 0.5 * result.signals
    assert len(result.latency_ns) == result.signals
    assert (result.latency_ns > 0).all()


def test_training_ends_before_the_test_begins(result, markets):
    assert result.train_end <= result.test_start
    assert (result.ts >= result.test_start).all()
    first = min(int(market.bars.ts_event[0]) for market in markets)
    last = max(int(market.bars.ts_event[-1]) for market in markets)
    share = (result.train_end - first) / (last - first)
    assert 0.55 < share < 0.65


def test_money_adds_up(result):
    for run in result.runs:
        assert run.equity[0] == pytest.approx(run.starting_equity, rel=0.05)
        assert run.fees >= 0.0
    flat = result.run("flat")
    assert flat.trades > 50
    # Each trade pays the taker's 4.5 bp (or the maker's 1.5 on its target) on about a quarter of the equity, twice.
    per_trade = flat.fees / flat.trades / flat.starting_equity
    assert 0.25 * 2 * 0.00015 < per_trade < 0.25 * 2 * 0.00045 * 1.2


def test_the_result_says_that_the_market_is_synthetic(result):
    assert result.synthetic
    assert "SYNTHETIC" in result_text(result).splitlines()[0]


def test_the_same_backtest_again_is_identical(result, markets, tmp_path):
    def plain(a):
        values = result_json(a)
        return json.dumps({key: value for key, value in values.items() if "latency" not in key})

    again = run_backtest("hyperliquid_5m", markets, "mean_reversion", tmp_path)
    assert again.confidence.tobytes() == result.confidence.tobytes()
    assert np.array_equal(again.run("enriched").equity, result.run("enriched").equity)
    assert plain(again).replace(again.model_version, "") == plain(result).replace(result.model_version, "")


class TestCommand:
    @pytest.mark.slow
    def test_the_command_works_without_market_data(self, tmp_path):
        # A copy of the checkout with nothing beside it: what a new user has.
        listed = subprocess.run(
            ["git", "ls-files", "-co", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        checkout = tmp_path / "somewhere" / "checkout"
        for name in listed:
            target = checkout / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / name).read_bytes())
        command = [
            sys.executable,
            "-m",
            "backtests",
            "--universe",
            "hyperliquid_5m",
            "--primary",
            "mean_reversion",
        ]
        done = subprocess.run(
            command,
            cwd=checkout,
            capture_output=True,
            text=True,
            env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        )
        assert done.returncode == 0, done.stderr
        assert "SYNTHETIC" in done.stdout
        assert "SYNTHETIC" in (checkout / "out" / "tearsheet.html").read_text()
