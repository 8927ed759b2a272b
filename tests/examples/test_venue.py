"""The stub of the venue: its messages against the recorded ones, its candles against its trades, its faults."""

import asyncio
import itertools
import json
import time
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest

from backtests.market import data_root
from examples.venue import Venue
from examples.venue.candles import MINUTE_MS, CandleClock, Candles
from examples.venue.tape import Tape, price_text

ROOT = data_root()
RECORDED = pytest.mark.skipif(ROOT is None, reason="there is no folder of recorded data")


@pytest.fixture(scope="module")
def venue() -> Iterator[Venue]:
    with Venue("--candle-ms", "200", "--speed", "4", "--virtual-candles", "2000") as venue:
        yield venue
        assert venue.errors() == ""


def listen(
    venue: Venue,
    *subscriptions: dict[str, Any],
    until: int = 5,
    seconds: float = 20.0,
    text: str | None = None,
) -> list[dict[str, Any]]:
    """Return the messages until there are `until` of each channel that was subscribed to."""

    async def run() -> list[dict[str, Any]]:
        messages: list[dict[str, Any]] = []
        wanted = {s["type"] for s in subscriptions}
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(venue.base_url_ws) as socket,
            asyncio.timeout(seconds),
        ):
            for subscription in subscriptions:
                await socket.send_json({"method": "subscribe", "subscription": subscription})
            if text is not None:
                await socket.send_str(text)
                return [await socket.receive_json()]
            while any(sum(m["channel"] == channel for m in messages) < until for channel in wanted):
                messages.append(await socket.receive_json())
        return messages

    return asyncio.run(run())


def of(messages: list[dict[str, Any]], channel: str) -> list[Any]:
    return [m["data"] for m in messages if m["channel"] == channel]


def shape(value: Any) -> Any:
    """Return the keys and types of a message, and of texts whether they are a number."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    if isinstance(value, str):
        try:
            float(value)
        except ValueError:
            return f"hex{len(value)}" if value.startswith("0x") else "text"
        return "decimal" if "." in value else "digits"
    return type(value).__name__


@RECORDED
@pytest.mark.parametrize("channel", ["trades", "candle", "l2Book", "bbo", "allMids"])
def test_a_message_has_the_keys_and_types_of_the_recorded_one(channel, venue):
    assert ROOT is not None
    samples = json.loads((ROOT / "hyperliquid/ws_subscription_samples_HYPE_202512.json").read_text())
    sample = next(s for s in samples if s["channel"] == channel)
    subscription = {
        k: {"HYPE": "BTC", "1d": "1m"}.get(v, v) for k, v in sample["subscribe"]["subscription"].items()
    }
    messages = listen(venue, subscription, until=1)
    assert shape(messages[0]) == shape(sample["ack"])
    made = next(m for m in messages if m["channel"] == channel)
    if channel == "allMids":
        assert set(made["data"]["mids"]) == {"BTC", "ETH", "SOL"}
        made["data"]["mids"] = sample["message"]["data"]["mids"] = {"X": made["data"]["mids"]["BTC"]}
    expected = shape(sample["message"])
    if channel == "trades":
        assert made["data"][0]["side"] in "AB"
    assert shape(made) == expected


@RECORDED
def test_books_and_trades_are_those_of_the_recording(venue):
    assert ROOT is not None
    recorded = json.loads((ROOT / "hyperliquid/ws_BTC_l2Book_trades_20250126.json").read_text())
    messages = listen(venue, {"type": "l2Book", "coin": "ETH"}, {"type": "trades", "coin": "ETH"}, until=3)
    for channel in ("l2Book", "trades"):
        sample = next(r["message"] for r in recorded if r["message"]["channel"] == channel)
        made = next(m for m in messages if m["channel"] == channel)
        assert shape(made) == shape(sample)
    known = {
        (t["tid"], t["px"], t["sz"], t["side"])
        for e in Tape().events()
        if e.channel == "trades"
        for t in e.data
    }
    for trade in (t for batch in of(messages, "trades") for t in batch):
        assert (trade["tid"], trade["px"], trade["sz"], trade["side"]) in known
        assert abs(trade["time"] / 1e3 - time.time()) < 60
    assert venue.state()["data"].startswith("real:")


@RECORDED
@pytest.mark.parametrize(
    ("query", "file"),
    [
        ({"type": "meta"}, "http_meta_20230717.json"),
        ({"type": "allMids"}, "http_allMids_20230717.json"),
        ({"type": "l2Book", "coin": "BTC"}, "http_l2Book_DYDX_20230717.json"),
        (
            {
                "type": "candleSnapshot",
                "req": {"coin": "BTC", "interval": "1h", "startTime": 0, "endTime": 2**53},
            },
            "http_candleSnapshot_kPEPE_1h_20230521.json",
        ),
        ({"type": "spotMetaAndAssetCtxs"}, "http_spotMetaAndAssetCtxs.json"),
    ],
    ids=lambda value: value["type"] if isinstance(value, dict) else "",
)
def test_an_answer_has_the_keys_and_types_of_the_recorded_one(query, file, venue):
    assert ROOT is not None
    recorded, made = json.loads((ROOT / "hyperliquid" / file).read_text())["response"], venue.info(**query)
    if query["type"] == "meta":  # later answers have more beside the universe
        assert shape(made["universe"]) == shape(recorded["universe"])
    elif query["type"] == "allMids":
        assert {shape(v) for v in made.values()} == {shape(v) for v in recorded.values()} == {"decimal"}
    elif query["type"] == "spotMetaAndAssetCtxs":
        assert shape(made[0]) == shape(recorded[0])
    else:
        assert shape(made) == shape(recorded)


def test_without_recorded_data_a_synthetic_tape_says_so():
    with Venue("--synthetic", "--candle-ms", "200") as venue:
        assert venue.state()["data"].startswith("SYNTHETIC")
        messages = listen(venue, {"type": "trades", "coin": "SOL"}, {"type": "bbo", "coin": "SOL"}, until=3)
        bid, ask = of(messages, "bbo")[0]["bbo"]
        assert 0 < float(bid["px"]) < float(ask["px"])
        assert len(venue.info(type="candleSnapshot", req=snapshot("BTC", "1m"))) == 5_000


def test_the_synthetic_tape_is_the_same_every_time():
    first, second = (list(zip(range(500), Tape(synthetic=True).events(), strict=False)) for _ in range(2))
    assert first == second


def snapshot(coin: str, interval: str, start: int = 0, end: int = 2**53) -> dict[str, Any]:
    return {"coin": coin, "interval": interval, "startTime": start, "endTime": end}


@pytest.mark.slow
@pytest.mark.parametrize("interval", ["1m", "5m"])
def test_history_and_stream_agree_on_every_closed_candle_and_join(interval, venue):
    messages = listen(venue, {"type": "candle", "coin": "BTC", "interval": interval}, until=60)
    streamed: dict[int, Any] = {}
    for candle in of(messages, "candle"):
        streamed[candle["t"]] = candle  # the last word on each
    last = max(streamed)
    first = min(streamed)
    history = {c["t"]: c for c in venue.info(type="candleSnapshot", req=snapshot("BTC", interval))}
    step = MINUTE_MS * (1 if interval == "1m" else 5)
    assert sorted(history) == list(range(min(history), max(history) + step, step))
    closed = [t for t in streamed if first < t < last]
    assert len(closed) > (5 if interval == "1m" else 0)
    for t in closed:
        assert streamed[t] == history[t]
    for candle in history.values():
        assert candle["T"] == candle["t"] + step - 1
        low, high = float(candle["l"]), float(candle["h"])
        assert (
            low
            <= min(float(candle["o"]), float(candle["c"]))
            <= max(float(candle["o"]), float(candle["c"]))
            <= high
        )
    assert max(history) + step <= time.time() * 1e3


@pytest.mark.slow
def test_a_candle_is_made_of_the_trades_of_its_time():
    with Venue("--candle-ms", "2000", "--speed", "6", "--virtual-candles", "100") as venue:
        coin = {"coin": "BTC"}
        messages = listen(
            venue, {"type": "candle", **coin, "interval": "1m"}, {"type": "trades", **coin}, until=40
        )
    # A minute's trades are those told since its first candle, up to the next one's.
    trades: dict[int, list[dict[str, Any]]] = {}
    candles: dict[int, dict[str, Any]] = {}
    pending: list[dict[str, Any]] = []
    for message in messages:
        if message["channel"] == "trades":
            pending = message["data"]
        elif message["channel"] == "candle":
            candle = message["data"]
            candles[candle["t"]] = candle
            trades.setdefault(candle["t"], []).extend(pending)
            pending = []
    whole = sorted(candles)[1:-1]
    assert whole
    for t in whole:
        prices = [float(trade["px"]) for trade in trades[t]]
        candle = candles[t]
        assert candle["n"] == len(prices)
        assert float(candle["v"]) == pytest.approx(sum(float(trade["sz"]) for trade in trades[t]))
        if prices:
            assert float(candle["c"]) == prices[-1]
            assert (float(candle["h"]), float(candle["l"]), float(candle["o"])) == (
                max(prices),
                min(prices),
                prices[0],
            )


def test_virtual_candles_never_pass_the_clock():
    started = 1_700_000_000_000.0
    clock = CandleClock(started, 100.0, 30)
    opens = [clock.open_ms(started + ms) for ms in range(0, 20_000, 100)]
    assert opens[0] == started // MINUTE_MS * MINUTE_MS - 30 * MINUTE_MS
    assert opens[1] - opens[0] == opens[20] - opens[19] == MINUTE_MS
    assert max(o + MINUTE_MS - (started + 20_000) for o in opens) <= 0
    assert clock.open_ms(started + 600_000) + MINUTE_MS <= started + 600_000


def test_the_past_meets_the_present_at_its_price():
    past = [(100.0, 103.0, 99.0, 102.0, 5.0), (102.0, 104.0, 101.0, 101.0, 7.0)]
    candles = Candles("ETH", 60_000 * 1_000_000, 4_000.0, lambda coin: past)
    found = candles.snapshot("1m", 0, 2**53)
    assert len(found) == 5_000
    assert found[-1]["n"] == 0
    assert found[-2]["c"] == "4000.0"
    # 101 became 4000, so 102 before it became 4039.6.
    assert (found[-2]["o"], found[-2]["h"], found[-2]["l"]) == ("4039.6", "4118.8", "4000.0")
    assert found[-3]["c"] == found[-2]["o"]


@pytest.mark.parametrize(
    ("coin", "price", "text"),
    [("BTC", 109_741.4, "109741.0"), ("BTC", 99_999.94, "100000.0"), ("BTC", 9_876.54, "9876.5"),
     ("ETH", 4_268.04, "4268.0"), ("ETH", 123.456, "123.46"), ("SOL", 202.226, "202.23"),
     ("SOL", 0.12345678, "0.1235")],
)  # fmt: skip
def test_prices_are_written_with_five_figures_and_the_coins_decimals(coin, price, text):
    assert price_text(coin, price) == text


def test_recent_trades_are_replayed_on_subscribing_and_may_be_repeated(venue):
    trades = {"type": "trades", "coin": "BTC"}
    listen(venue, trades, until=3)
    tids = [t["tid"] for batch in of(listen(venue, trades, until=1), "trades") for t in batch]
    again = [t["tid"] for batch in of(listen(venue, trades, until=1), "trades") for t in batch]
    assert set(tids) & set(again)
    venue.control("feed", duplicates=1)
    batches = of(listen(venue, trades, until=5), "trades")
    assert any(one == other for one, other in itertools.pairwise(batches))
    venue.control("feed", duplicates=0)


@pytest.mark.slow
def test_skipped_candles_are_missing_in_the_stream_and_there_in_the_history(venue):
    venue.control("skip_candles", coin="SOL", count=3)
    subscriptions = [{"type": "candle", "coin": coin, "interval": "1m"} for coin in ("SOL", "BTC")]
    messages = listen(venue, *subscriptions, until=60)
    sol, btc = ({c["t"] for c in of(messages, "candle") if c["s"] == coin} for coin in ("SOL", "BTC"))
    missing = {t for t in btc - sol if t < max(sol)}
    assert len(missing) >= 3
    history = {c["t"] for c in venue.info(type="candleSnapshot", req=snapshot("SOL", "1m"))}
    assert missing <= history


@pytest.mark.parametrize("mode", ["close", "abort"])
def test_connections_can_be_dropped_and_refused(mode, venue):
    async def run() -> None:
        async with aiohttp.ClientSession() as session:
            async with session.ws_connect(venue.base_url_ws) as socket:
                await asyncio.to_thread(venue.control, "drop", mode=mode)
                message = await socket.receive(5)
                assert message.type in (
                    aiohttp.WSMsgType.CLOSE,
                    aiohttp.WSMsgType.CLOSED,
                    aiohttp.WSMsgType.ERROR,
                )
            await asyncio.to_thread(venue.control, "set", accept=False)
            with pytest.raises(aiohttp.WSServerHandshakeError):
                await session.ws_connect(venue.base_url_ws)
            await asyncio.to_thread(venue.control, "set", accept=True)

    asyncio.run(run())


@pytest.mark.parametrize(
    "how",
    ["truncated", "not_json", "binary", "wrong_types", "nan", "unknown_channel", "unknown_coin", "empty"],
)
def test_malformed_frames_are_sent(how, venue):
    async def run() -> Any:
        async with aiohttp.ClientSession() as session, session.ws_connect(venue.base_url_ws) as socket:
            await asyncio.to_thread(venue.control, "malformed", how=how)
            return (await socket.receive(5)).data

    data = asyncio.run(run())
    if how in ("truncated", "not_json", "empty"):
        with pytest.raises(ValueError):
            json.loads(data)
    else:
        assert isinstance(data, bytes) == (how == "binary")


def test_a_frozen_venue_says_nothing_and_pongs_when_it_is_not(venue):
    assert listen(venue, text='{"method":"ping"}') == [{"channel": "pong"}]
    for text in ("nonsense", "[]", '{"method":"subscribe","subscription":{"type":"bbo","coin":"NOPE"}}'):
        assert listen(venue, text=text)[0]["channel"] == "error"
    venue.control("set", frozen=True)
    with pytest.raises(TimeoutError):
        listen(venue, text='{"method":"ping"}', seconds=0.5)
    venue.control("set", frozen=False)


def test_info_can_fail_be_slow_and_lack_an_instrument(venue):
    venue.control("set", info_fail=["meta"])
    with pytest.raises(OSError, match="500"):
        venue.info(type="meta")
    venue.control("set", info_fail=[], info_delay_ms=300, missing=["ETH"])
    begun = time.monotonic()
    assert [u["name"] for u in venue.info(type="meta")["universe"]] == ["BTC", "XETH", "SOL"]
    assert time.monotonic() - begun >= 0.3
    venue.control("set", info_delay_ms=0, missing=[], info_status=502)
    with pytest.raises(OSError, match="502"):
        venue.info(type="allMids")
    venue.control("set", info_status=200)
    with pytest.raises(OSError, match="422"):
        venue.info(type="no such thing")


def test_the_proxy_dials_only_the_venue(venue):
    async def ask(target: str) -> bytes:
        host, port = venue.env["HTTPS_PROXY"].removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(f"CONNECT {target} HTTP/1.1\r\n\r\n".encode())
        line = await reader.readline()
        writer.close()
        return line

    assert b"200" in asyncio.run(ask("api.hyperliquid.xyz:443"))
    for target in ("example.com:443", "127.0.0.1:22", "api.hyperliquid.xyz:80"):
        assert b"403" in asyncio.run(ask(target))


def test_an_unknown_control_is_refused_by_name(venue):
    for arguments in (("explode",), ("drop",), ("orders",), ("set",), ("feed",)):
        with pytest.raises(ValueError, match=r"explode|mode|nosuch"):
            venue.control(*arguments, **({} if arguments[0] in ("explode", "drop") else {"nosuch": 1}))
