"""Run a node until it is asked to stop, and notice where NautilusTrader would go on without trading."""

import asyncio
import gc
import signal
import sys
from collections.abc import Sequence

import msgspec

from ml4t_actor.nautilus.live import (
    LoggingConfig,
    ShutdownSystem,
    TradingNode,
    TradingNodeConfig,
    logging_sync_to_disk,
    sync_logger_to_disk,
)
from ml4t_actor.nautilus.model import InstrumentId
from ml4t_actor.node.config import NodePlan
from ml4t_actor.node.venues import order_statuses, statements
from ml4t_actor.strategy import EnrichedSignalStrategy
from ml4t_actor.strategy.requirements import longest_stop_s

POLL_S = 0.02
GRACE_S = 5.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def run_node(plan: NodePlan) -> bool:
    """Build and run a node; return whether it started, and stopped because it was asked to.

    To be called on the main thread. SIGINT and SIGTERM stop the node; a second one ends the process at once.
    """
    try:
        node = _build(plan)
    except Exception as e:  # of any adapter or component
        _print_error(f"the node could not be built: {_reason(e)}")
        return False
    loop = node.kernel.loop
    runner = _Runner(node, plan.config, plan.instrument_ids)
    try:
        problems = loop.run_until_complete(runner.run())
    finally:
        if runner.started:
            node.dispose()
        else:
            _dispose_unstarted(node)
    if problems:  # printed last, so that they are not lost in the log, each half of which has its own thread
        sync_logger_to_disk()
        logging_sync_to_disk()
    for problem in problems:
        _print_error(problem)
    return not problems


def _dispose_unstarted(node: TradingNode) -> None:
    """Dispose of a node that never ran, for which its own `dispose` would wait."""
    loop = node.kernel.loop
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
    node.kernel.dispose()
    if (executor := node.kernel.executor) is not None:
        executor.shutdown(wait=False, cancel_futures=True)
    loop.close()


def _build(plan: NodePlan) -> TradingNode:
    config = plan.config
    if config.logging is None:
        logging = LoggingConfig(log_colors=sys.stdout.isatty())
        config = msgspec.structs.replace(config, logging=logging)
    node = TradingNode(config=config)
    # Added as classes: of those named in the config the node's builder makes instances, and fails on them for execution
    # (`'...Factory' object has no attribute '__name__'`).
    for clients, add in (
        (plan.data_clients, node.add_data_client_factory),
        (plan.exec_clients, node.add_exec_client_factory),
    ):
        for name, factory in {client.name.partition("-")[0]: client.factory for client in clients}.items():
            add(name, factory)
    node.build()
    for strategy in node.trader.strategies():
        if isinstance(strategy, EnrichedSignalStrategy):
            strategy.awaited_at_stop = True
            for client in plan.exec_clients:
                venue = client.name.partition("-")[0]
                if (orders := order_statuses(client.config)) is not None:
                    strategy.use_order_statuses(venue, orders)
                if (accounts := statements(client.config)) is not None:
                    strategy.use_statements(venue, accounts)
    return node


class _Runner:
    def __init__(
        self, node: TradingNode, config: TradingNodeConfig, instrument_ids: Sequence[InstrumentId]
    ) -> None:
        self.started = False
        self._node = node
        self._config = config
        self._instrument_ids = instrument_ids
        self._stop_requested = asyncio.Event()
        self._shutdown_reason: str | None = None

    async def run(self) -> list[str]:
        """Run, and return what went wrong."""
        loop = asyncio.get_running_loop()
        for sig in _SIGNALS:  # in place of the node's own, which leave a start under way going
            loop.add_signal_handler(sig, self._on_signal, sig)
        self._node.kernel.msgbus.subscribe("commands.system.shutdown", self._on_shutdown)
        running = loop.create_task(self._node.run_async())
        failure = await self._wait_until_running(running)
        if failure is None and not self._stop_requested.is_set():
            # What is there by now stays: searching it for garbage would hold the event loop for a tenth of a second.
            gc.collect()
            gc.freeze()
            stop_requested = loop.create_task(self._stop_requested.wait())
            await asyncio.wait({running, stop_requested}, return_when=asyncio.FIRST_COMPLETED)
            stop_requested.cancel()
            if not self._stop_requested.is_set():
                failure = self._end_reason(running)
        unclean = await self._stop(running)
        return [problem for problem in (failure, unclean, self._unprotected()) if problem is not None]

    async def _wait_until_running(self, running: "asyncio.Task[None]") -> str | None:
        """Wait for the trader to run; return why it does not, None where it does or is not to any more."""
        kernel, config = self._node.kernel, self._config
        loop = asyncio.get_running_loop()
        deadline = loop.time() + config.timeout_connection + GRACE_S
        connected = False
        while not self._stop_requested.is_set():
            if kernel.trader.is_running:
                self.started = True
                return self._missing_instruments()
            if running.done():
                return self._with_instruments(self._end_reason(running))
            if (
                not connected
                and kernel.data_engine.check_connected()
                and kernel.exec_engine.check_connected()
            ):
                connected = True
                deadline = loop.time() + _after_connection_s(config) + GRACE_S
            if loop.time() > deadline:
                return self._with_instruments(self._start_failure(connected))
            await asyncio.sleep(POLL_S)
        return None

    def _start_failure(self, connected: bool) -> str:
        kernel = self._node.kernel
        if connected:
            return (
                "the node could not start: connected, but orders and positions could not be reconciled with the venue; "
                "see the log above"
            )
        engines = (("data", kernel.data_engine), ("execution", kernel.exec_engine))
        disconnected = [
            f"{kind} client {', '.join(str(name) for name in engine.registered_clients)}"
            for kind, engine in engines
            if not engine.check_connected()
        ]
        return (
            f"the node could not start: no connection of {' and '.join(disconnected)} within "
            f"{self._config.timeout_connection:g} s; check the network and the venue, see the log above"
        )

    def _with_instruments(self, failure: str) -> str:
        missing = self._missing_instruments()
        return failure if missing is None else f"{failure}; {missing}"

    def _missing_instruments(self) -> str | None:
        cache = self._node.kernel.cache
        missing = [str(name) for name in self._instrument_ids if cache.instrument(name) is None]
        if not missing:
            return None
        return (
            f"the node cannot trade: the venue gave no instrument {', '.join(missing)}; check `bar_types`, "
            "`instrument_provider.load_ids`, and whether the venue answers"
        )

    def _end_reason(self, running: "asyncio.Task[None]") -> str:
        if self._shutdown_reason is not None:
            return f"the node was shut down by one of its components: {self._shutdown_reason}"
        error = None if not running.done() or running.cancelled() else running.exception()
        if error is not None:
            when = "ended" if self.started else "could not start"
            return f"the node {when}: {_reason(error)}"
        return "the node ended by itself; see the log above"

    async def _stop(self, running: "asyncio.Task[None]") -> str | None:
        """Stop; return what went wrong."""
        kernel, config = self._node.kernel, self._config
        limit = config.timeout_post_stop + config.timeout_disconnection + GRACE_S
        try:
            if self.started or kernel.trader.is_running:
                self.started = True
                if kernel.is_running():
                    await self._stop_trading()
                    await asyncio.wait_for(self._node.stop_async(), limit)
            else:
                # Not `stop_async`: it would save the empty state of components that never ran over what is saved.
                running.cancel()
                await asyncio.wait({running})
                for component in (*kernel.trader.actors(), *kernel.trader.strategies()):
                    if component.is_running:  # another one failed to start after it
                        component.stop()
                kernel.data_engine.disconnect()
                kernel.exec_engine.disconnect()
                await asyncio.wait_for(self._until_disconnected(), limit)
        except TimeoutError:
            return f"the node did not stop within {limit:g} s; see the log above"
        except Exception as e:
            return f"the node did not stop cleanly: {_reason(e)}"
        finally:
            running.cancel()
            await asyncio.wait({running}, timeout=GRACE_S)
        return None

    async def _stop_trading(self) -> None:
        """Stop actors and strategies, and stay connected until no strategy has anything on its way.

        The node's own stop disconnects after `timeout_post_stop`, whatever the venue has not answered by then.
        """
        trader = self._node.kernel.trader
        if not trader.is_running:  # one of its components is stopping the node already
            return
        trader.stop()
        strategies = self._strategies()
        limit_s = max((longest_stop_s(each.config.order_timeout) for each in strategies), default=0.0)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + limit_s
        while not all(each.is_settled() for each in strategies) and loop.time() < deadline:
            await asyncio.sleep(POLL_S)
        await asyncio.sleep(self._config.timeout_post_stop)
        trader.check_residuals()

    def _unprotected(self) -> str | None:
        """Return what is left at the venue without a stop."""
        left = [item for each in self._strategies() for item in each.unprotected()]
        return f"the node stopped, and left at the venue: {'; '.join(left)}" if left else None

    def _strategies(self) -> list[EnrichedSignalStrategy]:
        strategies = self._node.kernel.trader.strategies()
        return [each for each in strategies if isinstance(each, EnrichedSignalStrategy)]

    async def _until_disconnected(self) -> None:
        kernel = self._node.kernel
        while not (kernel.data_engine.check_disconnected() and kernel.exec_engine.check_disconnected()):
            await asyncio.sleep(POLL_S)

    def _on_signal(self, sig: signal.Signals) -> None:
        self._node.kernel.logger.warning(f"{sig.name}: stopping")
        self._stop_requested.set()
        loop = asyncio.get_running_loop()
        for each in _SIGNALS:
            loop.remove_signal_handler(each)
            signal.signal(each, signal.SIG_DFL)  # a second one does not wait

    def _on_shutdown(self, command: ShutdownSystem) -> None:
        self._shutdown_reason = str(command.reason)


def _after_connection_s(config: TradingNodeConfig) -> float:
    reconciliation = config.timeout_reconciliation if config.exec_engine.reconciliation else 0.0
    return float(reconciliation + config.timeout_portfolio)


def _reason(error: BaseException) -> str:
    return str(error) or type(error).__name__


def _print_error(message: str) -> None:
    print(message, file=sys.stderr, flush=True)
