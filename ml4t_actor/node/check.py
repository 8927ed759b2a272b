"""Check everything that a node needs, without trading."""

import asyncio
import math
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, cast
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

from ml4t_actor.config import ML4TActorConfig
from ml4t_actor.feed.bar_times import bar_interval_ns
from ml4t_actor.indicators.features import load_feature_classes
from ml4t_actor.inference import InferenceLoop
from ml4t_actor.ledger.schema import LedgerError, reading
from ml4t_actor.nautilus.components import Cache
from ml4t_actor.nautilus.live import LiveClock, MessageBus
from ml4t_actor.nautilus.model import BarType, InstrumentId
from ml4t_actor.nautilus.trading import Instrument
from ml4t_actor.node.account_check import check_accounts
from ml4t_actor.node.config import ClientPlan, NodePlan
from ml4t_actor.node.findings import FAIL, PASS, WARN, Finding, Level
from ml4t_actor.node.trading_check import check_trading
from ml4t_actor.node.venues import venue_of
from ml4t_actor.registry import ModelStore

if TYPE_CHECKING:
    from ml4t_actor.streams.connection import RedisLink

CLOCK_OFFSET_MAX_S = 1.0
DATE_REQUESTS = 4
DISK_MIN_MEGABYTES = 200.0
VENUE_TIMEOUT_S = 30.0
REDIS_OLDEST = (6, 2)


async def check_node(plan: NodePlan) -> list[Finding]:
    """Return the findings of all checks, of a config that was read without a problem."""
    n = len(plan.components)
    findings = [Finding(PASS, "config", f"{plan.path}: {len(plan.clients)} client(s), {n} component(s)")]
    findings += check_environment(plan)
    findings += check_trading(plan)
    findings += check_bars(plan)
    instruments: dict[InstrumentId, Instrument] = {}
    findings += await _check_instruments(plan, instruments)
    findings += await asyncio.to_thread(check_accounts, plan, instruments)
    findings += await asyncio.to_thread(_check_venue_clocks, plan)
    if not plan.actors:
        findings.append(Finding(WARN, "actor", "the config has no ML4TActor", "add one to `actors`"))
    for config in plan.actors:
        findings += await asyncio.to_thread(_check_actor, config)
    return findings


def check_environment(plan: NodePlan) -> list[Finding]:
    """Return whether the keys that the clients need are in the environment, without showing them."""
    findings: dict[Finding, None] = {}
    for client in plan.clients:
        venue = venue_of(client.config)
        if venue is None:
            continue
        names = venue.key_names(client.config)
        missing = [name for name in names if not os.environ.get(name, "").strip()]
        for name in missing:
            findings[
                Finding(
                    FAIL,
                    "keys",
                    f"{name} is not set",
                    f"set it in the environment: client {client.name} trades on {venue.name_of(client.config)} with it",
                )
            ] = None
        if names and not missing:
            fault = venue.key_fault(client.config)
            if fault is not None:
                findings[Finding(FAIL, "keys", fault, "correct it in the environment")] = None
            else:
                findings[Finding(PASS, "keys", f"{', '.join(names)} set")] = None
    return list(findings)


def check_bars(plan: NodePlan) -> list[Finding]:
    """Return which bars the data clients refuse: the node would start, and never see one."""
    venues = [venue for client in plan.data_clients if (venue := venue_of(client.config)) is not None]
    findings: dict[Finding, None] = {}
    for bar_type in plan.bar_types:
        for venue in venues:
            if (fault := venue.bar_fault(bar_type)) is not None:
                finding = Finding(FAIL, "bars", f"{bar_type}: {fault}", "use one of those, or ...-INTERNAL")
                findings[finding] = None
    return list(findings)


async def _check_instruments(plan: NodePlan, instruments: dict[InstrumentId, Instrument]) -> list[Finding]:
    """Return the findings about the instruments that are wanted, and put those that were loaded into `instruments`."""
    wanted = plan.instrument_ids
    if not wanted:
        return [
            Finding(WARN, "instruments", "no component has `bar_types`", "name the bars that it is to follow")
        ]
    findings = []
    covered: set[str] = set()
    for client in plan.data_clients:
        try:
            venue, loaded = await asyncio.wait_for(_load_instruments(plan, client), VENUE_TIMEOUT_S)
        except Exception as e:  # of any adapter
            error = f"no answer within {VENUE_TIMEOUT_S:g} s" if isinstance(e, TimeoutError) else e
            findings.append(
                Finding(
                    FAIL,
                    "instruments",
                    f"client {client.name} could not load any: {error}",
                    "check the network and whether the venue answers",
                )
            )
            covered |= {str(name) for name in wanted}
            continue
        instruments |= loaded
        own = [name for name in wanted if venue is None or str(name.venue) == venue]
        covered |= {str(name) for name in own}
        missing = [str(name) for name in own if name not in loaded]
        if missing and not loaded:
            findings.append(
                Finding(
                    FAIL,
                    "instruments",
                    f"client {client.name} got none, not even {', '.join(missing)}",
                    "check whether the venue answers, and `instrument_provider.load_ids` of the client",
                )
            )
        elif missing:
            findings.append(
                Finding(
                    FAIL,
                    "instruments",
                    f"client {client.name} has no {', '.join(missing)}",
                    "correct `bar_types`, and `instrument_provider.load_ids` of the client",
                )
            )
        elif own:
            findings.append(
                Finding(PASS, "instruments", f"client {client.name} has {', '.join(map(str, own))}")
            )
    if without_client := [str(name) for name in wanted if str(name) not in covered]:
        findings.append(
            Finding(
                FAIL, "instruments", f"no data client has the venue of {', '.join(without_client)}", "add one"
            )
        )
    return findings


async def _load_instruments(
    plan: NodePlan, client: ClientPlan
) -> tuple[str | None, dict[InstrumentId, Instrument]]:
    """Return a client's venue, and the instruments that its adapter's own provider loads; nothing is connected."""
    clock = LiveClock()
    built = client.factory.create(  # type: ignore[attr-defined]
        loop=asyncio.get_running_loop(),
        name=client.name.partition("-")[0],
        config=client.config,
        msgbus=MessageBus(trader_id=plan.config.trader_id, clock=clock),
        cache=Cache(),
        clock=clock,
    )
    # Every live market data client has one, though not by a public name.
    provider = built._instrument_provider
    await provider.initialize()
    return (None if built.venue is None else str(built.venue)), provider.get_all()


def _check_venue_clocks(plan: NodePlan) -> list[Finding]:
    findings, seen = [], set()
    for client in plan.clients:
        venue = venue_of(client.config)
        if venue is None or (url := venue.date_url(client.config)) in seen:
            continue
        seen.add(url)
        name = venue.name_of(client.config)
        try:
            low, high = _clock_offset(url, getattr(client.config, "proxy_url", None))
        except Exception as e:
            findings.append(
                Finding(WARN, "clock", f"{name} does not give its time: {e}", "check the network")
            )
        else:
            findings.append(_clock_finding(name, low, high))
    return findings


def _clock_offset(url: str, proxy: str | None) -> tuple[float, float]:
    """Return the bounds between which this clock is ahead of the venue's, seconds."""
    opener = build_opener(*([ProxyHandler({"http": proxy, "https": proxy})] if proxy else []))
    low, high = -math.inf, math.inf
    # The header has whole seconds only: answers in different parts of one narrow it down.
    for i in range(DATE_REQUESTS):
        if i:
            time.sleep(1.0 / DATE_REQUESTS)
        before = time.time()
        try:
            with opener.open(Request(url, method="HEAD"), timeout=VENUE_TIMEOUT_S) as response:
                date = response.headers["Date"]
        except HTTPError as e:  # any answer has the header
            date = e.headers["Date"]
        after = time.time()
        if date is None:
            raise ValueError("its answer has no Date header")
        second = parsedate_to_datetime(date).timestamp()
        low, high = max(low, before - (second + 1.0)), min(high, after - second)
    return low, high


def _clock_finding(reference: str, low: float, high: float) -> Finding:
    """Return the finding about a clock that is ahead of another by something between two bounds, seconds."""
    middle = (low + high) / 2.0
    direction = "ahead of" if middle > 0.0 else "behind"
    if low > CLOCK_OFFSET_MAX_S or high < -CLOCK_OFFSET_MAX_S:
        return Finding(
            FAIL,
            "clock",
            f"this machine is {abs(middle):.1f} s {direction} {reference}",
            "synchronise it, with chrony or systemd-timesyncd",
        )
    return Finding(PASS, "clock", f"within {max(abs(low), abs(high), 0.001):.3f} s of {reference}")


def _check_actor(config: ML4TActorConfig) -> list[Finding]:
    findings = [*_check_redis(config), _check_model(config), *_check_ledger(config)]
    if config.health.metrics_port is not None:
        findings.append(_check_metrics(config.health.metrics_host, config.health.metrics_port))
    return findings


def _check_redis(config: ML4TActorConfig) -> Iterator[Finding]:
    if not config.redis_enabled:
        yield Finding(PASS, "redis", "not enabled")
        return
    settings = config.redis
    address = f"{settings.host}:{settings.port}"
    unreachable: Level = FAIL if config.redis_required else WARN
    try:
        # Imported here: it needs redis-py, which a node without Redis does not.
        from ml4t_actor.streams.connection import connect

        link = connect(settings)
    except Exception as e:
        yield Finding(
            unreachable,
            "redis",
            f"{address}: {e}",
            f"start it, or correct `redis`; a password is read from the variable {settings.password_env}",
        )
        return
    try:
        with link:
            yield from _check_redis_server(config, link, address)
    except Exception as e:
        yield Finding(FAIL, "redis", f"{address}: {e}", "let this account read and write the streams")


def _check_redis_server(config: ML4TActorConfig, link: "RedisLink", address: str) -> Iterator[Finding]:
    link.ping()
    round_trips = []
    for _ in range(5):
        before = time.time()
        seconds, microseconds = cast(list[bytes], link.execute("TIME"))
        after = time.time()
        round_trips.append((after - before, before, after, int(seconds) + int(microseconds) * 1e-6))
    elapsed, before, after, redis_s = min(round_trips)
    server_info = cast(bytes, link.execute("INFO", "server")).decode()
    version = next(
        (line.partition(":")[2] for line in server_info.splitlines() if line.startswith("redis_version:")),
        "0",
    )
    if tuple(int(part) for part in version.split(".")[:2]) < REDIS_OLDEST:
        oldest = ".".join(str(part) for part in REDIS_OLDEST)
        yield Finding(FAIL, "redis", f"{address} has version {version}", f"install {oldest} or later")
    else:
        yield Finding(PASS, "redis", f"{address} answers in {elapsed * 1e3:.2f} ms, version {version}")
    for name in (config.redis_channel_signals, config.redis_channel_enriched):
        reply = link.execute("TYPE", name)
        kind = reply.decode() if isinstance(reply, bytes) else str(reply)
        if kind not in ("stream", "none"):
            yield Finding(
                FAIL,
                "redis",
                f"the key {name!r} holds a {kind}, not a stream",
                "rename it, or use another key",
            )
        else:
            yield Finding(PASS, "redis", f"stream {name!r}{' is not there yet' if kind == 'none' else ''}")
    yield _clock_finding("Redis", before - redis_s, after - redis_s)


def _check_model(config: ML4TActorConfig) -> Finding:
    try:
        loop = InferenceLoop(
            feature_names=config.feature_names,
            custom_features=load_feature_classes(config.custom_features),
            labels=config.labels,
            vpin=config.vpin,
            volatility_halflife_bars=config.volatility_halflife_bars,
        )
        for text in config.bar_types:
            bar_type = BarType.from_str(text)
            loop.add_instrument(bar_type.instrument_id, bar_interval_ns(bar_type))
    except Exception as e:  # a user's own features may raise anything
        return Finding(FAIL, "model", f"features or bars cannot be set up: {e}", "correct the actor's config")
    store = ModelStore(config.model_path)
    bundle = store.load_latest(loop.check)
    refused = [f"{version}: {reason}" for version, reason in store.refusals.items()]
    if bundle is not None and refused:
        return Finding(
            WARN,
            "model",
            f"{bundle.version} would serve, newer ones do not ({refused[0]})",
            "look into those",
        )
    if bundle is not None:
        return Finding(PASS, "model", f"{bundle.version} fits")
    if refused:
        return Finding(
            FAIL,
            "model",
            f"of {len(refused)} in {config.model_path!r} none can serve ({refused[0]})",
            "give the actor the settings that it was trained with, or train a new one",
        )
    return Finding(
        WARN,
        "model",
        f"none in {config.model_path!r}: signals get the default confidence and status `no_model`",
        "train one, or let the actor train one when it has seen enough signals",
    )


def _check_ledger(config: ML4TActorConfig) -> Iterator[Finding]:
    path = config.ledger_path
    folder = path.parent.absolute()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        with tempfile.NamedTemporaryFile(dir=folder):
            pass
        if path.exists():
            with path.open("ab"):
                pass
            with reading(path):
                pass
        free_megabytes = shutil.disk_usage(folder).free / 2**20
    except (LedgerError, OSError) as e:
        yield Finding(
            FAIL, "ledger", f"{path} cannot be written: {e}", "correct `ledger.path`, or its permissions"
        )
        return
    yield Finding(PASS, "ledger", f"{path} {'can be written' if path.exists() else 'will be made'}")
    free = f"{free_megabytes:,.0f} MB free for the ledger"
    if free_megabytes < DISK_MIN_MEGABYTES:
        yield Finding(FAIL, "disk", free, f"make room: at least {DISK_MIN_MEGABYTES:g} MB")
    elif free_megabytes < config.ledger.max_megabytes:
        yield Finding(
            WARN,
            "disk",
            f"{free}, which may grow to {config.ledger.max_megabytes:,.0f} MB",
            "make room, or lower `ledger.max_megabytes`",
        )
    else:
        yield Finding(PASS, "disk", free)


def _check_metrics(host: str, port: int) -> Finding:
    try:
        from ml4t_actor.health.prometheus import MetricsServer

        server = MetricsServer(host, port, lambda: None)
        server.start()
    except (ImportError, OSError) as e:
        return Finding(FAIL, "metrics", str(e), "or leave `health.metrics_port` out")
    server.stop()
    return Finding(PASS, "metrics", f"{host}:{port} is free")
