"""Bars that the venue's adapter refuses are refused before the node starts, and no others."""

import os
import subprocess
import sys

import pytest

from examples.venue import Venue
from ml4t_actor.nautilus.model import BarType
from ml4t_actor.node.__main__ import main
from ml4t_actor.node.hyperliquid import bar_fault
from tests.support.node_files import BTC, KEY, changed, node_config, write
from tests.support.paths import ROOT
from tests.support.waiting import end_of

STEPS = [
    "1-SECOND",
    *(f"{n}-MINUTE" for n in (1, 2, 3, 4, 5, 6, 10, 12, 15, 20, 30)),
    *(f"{n}-HOUR" for n in (1, 2, 3, 4, 6, 8, 12)),
    *(f"{n}-DAY" for n in (1, 2, 3, 7)),
    "1-WEEK",
    "1-MONTH",
]

# The adapter's own client, in a process whose environment leads to the stub.
SUBSCRIBE = """
import asyncio, sys
from nautilus_trader.core import nautilus_pyo3 as pyo3

async def main():
    url, *bar_types = sys.argv[1:]
    instruments = await pyo3.HyperliquidHttpClient().load_instrument_definitions(
        include_spot=False, include_perps=True
    )
    client = pyo3.HyperliquidWebSocketClient(url=url)
    await client.connect(asyncio.get_running_loop(), instruments, lambda message: None)
    for text in bar_types:
        try:
            await client.subscribe_bars(pyo3.BarType.from_str(text))
        except RuntimeError:
            print(text)
    await client.close()

asyncio.run(main())
"""


def test_those_that_the_adapter_refuses_are_refused():
    names = [f"{BTC}-{step}-LAST-EXTERNAL" for step in STEPS]
    with Venue() as venue:
        command = [sys.executable, "-c", SUBSCRIBE, venue.base_url_ws, *names]
        process = subprocess.Popen(
            command, env=os.environ | venue.env, cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        assert end_of(process) == 0
        assert process.stdout is not None
        with process.stdout as lines:
            refused = lines.read().split()
    assert [name for name in names if bar_fault(BarType.from_str(name)) is not None] == refused
    assert 0 < len(refused) < len(names)


@pytest.mark.parametrize(
    ("bars", "refused"),
    [
        ("10-MINUTE-LAST-INTERNAL", False),
        ("10-MINUTE-LAST-INTERNAL@5-MINUTE-EXTERNAL", False),
        ("10-MINUTE-LAST-INTERNAL@2-MINUTE-EXTERNAL", True),
    ],
)
def test_bars_that_nautilus_aggregates_itself_are_refused_only_for_what_they_are_made_of(bars, refused):
    assert (bar_fault(BarType.from_str(f"{BTC}-{bars}")) is not None) == refused


def test_a_node_that_would_never_see_a_bar_does_not_start(tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("HYPERLIQUID_TESTNET_PK", KEY)
    raw = changed(
        node_config("hyperliquid_testnet.json"),
        "actors.0.config.bar_types",
        [f"{BTC}-10-MINUTE-LAST-EXTERNAL"],
    )
    assert main([str(write(tmp_path, raw))]) == 2
    assert "Hyperliquid has no bars of 10-MINUTE" in capfd.readouterr().err
