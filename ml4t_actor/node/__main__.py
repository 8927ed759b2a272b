"""Run a live trading node from a JSON file: ``python -m ml4t_actor.node configs/hyperliquid_testnet.json``.

The file is a `TradingNodeConfig` of NautilusTrader. Keys and passwords come from the environment.
"""

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from ml4t_actor.nautilus.live import logging_sync_to_disk, sync_logger_to_disk
from ml4t_actor.node.check import check_bars, check_environment, check_node
from ml4t_actor.node.config import NodeConfigError, read_plan
from ml4t_actor.node.findings import FAIL, print_table
from ml4t_actor.node.trading_check import check_trading

EXIT_STOPPED = 0
EXIT_FAILED = 1
EXIT_REFUSED = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the node, or with ``--check`` check it and report; return the exit code.

    0: stopped as asked by SIGINT or SIGTERM, or nothing failed the check. 1: could not start, ended by itself, or a
    check failed. 2: the file, the environment or an argument is wrong, and nothing was begun.
    """
    parser = argparse.ArgumentParser(
        prog="python -m ml4t_actor.node",
        description="Run a live trading node. Keys and passwords come from the environment.",
    )
    parser.add_argument(
        "config", help="JSON of a TradingNodeConfig, such as configs/hyperliquid_testnet.json"
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="check config, keys, instruments, Redis, model, clock and disk, report, and exit without trading",
    )
    options = parser.parse_args(arguments)
    try:
        plan = read_plan(options.config)
    except NodeConfigError as e:
        print(f"{options.config} cannot be run:", *e.problems, sep="\n  ", file=sys.stderr)
        return EXIT_REFUSED
    if options.check:
        findings = asyncio.run(check_node(plan))
        print_table(findings)
        return EXIT_FAILED if any(finding.level == FAIL for finding in findings) else EXIT_STOPPED
    known = (*check_environment(plan), *check_trading(plan), *check_bars(plan))
    failed = [finding for finding in known if finding.level == FAIL]
    if failed:
        for finding in failed:
            print(f"{finding.message}: {finding.remedy}", file=sys.stderr)
        return EXIT_REFUSED
    # Imported here: `--check` needs no engine.
    from ml4t_actor.node.run import run_node

    return EXIT_STOPPED if run_node(plan) else EXIT_FAILED


def _exit(code: int) -> NoReturn:
    """End the process at once, with all output written.

    A thread of NautilusTrader's Rust core that finishes while Python finalises, such as a connection that was given up,
    makes it abort the process (pyo3: "The Python interpreter is not initialized"), with 134 for exit code.
    """
    # Each asks its own half of NautilusTrader's logging, and waits; its flushing does not.
    sync_logger_to_disk()
    logging_sync_to_disk()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    _exit(main())
