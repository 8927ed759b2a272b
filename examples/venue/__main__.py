"""Run the stub: `python -m examples.venue`. It prints what a node needs to reach it, and runs until it is stopped."""

import argparse
import asyncio
import contextlib
import json
import signal
import tempfile
from pathlib import Path

from examples.venue.server import Server


async def _run(arguments: argparse.Namespace, folder: Path) -> None:
    server = Server(
        candle_ms=arguments.candle_ms,
        virtual_candles=arguments.virtual_candles,
        speed=arguments.speed,
        synthetic=arguments.synthetic,
        equity=arguments.equity,
    )
    stopped = asyncio.Event()
    for signum in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(signum, stopped.set)
    addresses = await server.start(folder, arguments.port)
    if arguments.ports_file is not None:
        part = arguments.ports_file.with_name(f"{arguments.ports_file.name}.part")
        part.write_text(json.dumps(addresses))
        part.replace(arguments.ports_file)  # whoever waits for the file finds it whole
    print(json.dumps(addresses, indent=1), flush=True)
    await stopped.wait()
    await server.stop()


def main() -> None:
    """Run the stub until it is ended."""
    parser = argparse.ArgumentParser(prog="python -m examples.venue", description="A stub of Hyperliquid.")
    parser.add_argument("--ports-file", type=Path, help="write the addresses here, as JSON")
    parser.add_argument("--port", type=int, default=0, help="of HTTP and WebSocket (default: a free one)")
    parser.add_argument("--candle-ms", type=float, default=60_000, help="time that a 1-minute candle takes")
    parser.add_argument(
        "--virtual-candles",
        type=int,
        default=90,
        help="with another --candle-ms: minutes that candles begin in the past",
    )
    parser.add_argument("--speed", type=float, default=1.0, help="of the recording")
    parser.add_argument(
        "--synthetic", action="store_true", help="play synthetic data even where there are recorded"
    )
    parser.add_argument("--equity", type=float, default=100_000.0, help="of the account, in USDC")
    with contextlib.suppress(KeyboardInterrupt), tempfile.TemporaryDirectory() as folder:
        asyncio.run(_run(parser.parse_args(), Path(folder)))


if __name__ == "__main__":
    main()
