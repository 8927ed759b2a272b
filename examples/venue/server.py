"""The stub's doors: HTTP `/info` and `/exchange`, WebSocket `/ws`, a proxy that ends TLS, and the control of faults."""

import asyncio
import contextlib
import json
import ssl
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import WSMsgType, web

from examples.venue.answers import answers
from examples.venue.candles import CandleClock
from examples.venue.certificates import write_certificates
from examples.venue.exchange import Exchange
from examples.venue.market import Market
from examples.venue.orders import COINS
from examples.venue.proxy import Proxy
from examples.venue.tape import Tape

_MALFORMED = {
    "truncated": '{"channel":"trades","data":[{"coin":"BTC","side":"B","px":"1097',
    "not_json": "<html>502 Bad Gateway</html>",
    "wrong_types": '{"channel":"trades","data":{"coin":1}}',
    "nan": '{"channel":"bbo","data":{"coin":"BTC","time":1,"bbo":[{"px":"NaN","sz":"1","n":1},null]}}',
    "unknown_channel": '{"channel":"weather","data":{"sun":true}}',
    "unknown_coin": '{"channel":"trades","data":[{"coin":"NOPE","side":"B","px":"1","sz":"1","time":1,'
    '"hash":"0x0","tid":1,"users":["0x0","0x0"]}]}',
    "empty": "",
}


@dataclass(eq=False)
class _Connection:
    number: int
    socket: web.WebSocketResponse
    request: web.Request
    subscriptions: dict[str, dict[str, Any]] = field(default_factory=dict)


class Server:
    """The venue on loopback.

    Attributes
    ----------
    log : list[dict]
        Recorded traffic: what came in, what the user was told, what was done to the venue.
    options : dict
        What may be set by control; see `examples.venue`.
    """

    def __init__(
        self,
        *,
        candle_ms: float = 60_000,
        virtual_candles: int = 90,
        speed: float = 1.0,
        synthetic: bool = False,
        equity: float = 100_000.0,
    ) -> None:
        self.log: list[dict[str, Any]] = []
        self.options: dict[str, Any] = {
            "accept": True,  # else an upgrade to WebSocket is answered with 503
            "frozen": False,  # nothing is sent, pongs included, and nothing is answered
            "replay": True,  # recent trades on subscribing
            "info_status": 200,
            "info_fail": [],  # types of /info answered with 500
            "info_delay_ms": 0,
            "post_delay_ms": 0,
            "missing": [],  # coins that are not listed
        }
        self._connections: list[_Connection] = []
        self._numbers = 0
        self._clock = CandleClock(time.time() * 1e3, candle_ms, virtual_candles)
        self.market = Market(Tape(synthetic=synthetic), self._clock, self._publish, self._moved, speed)
        self.exchange = Exchange(self.market.top, equity)
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, folder: Path, port: int = 0) -> dict[str, Any]:
        """Open the doors; return the addresses and the environment that a node needs."""
        ca, certificate = write_certificates(folder)
        app = web.Application()
        app.add_routes(
            [
                web.post("/info", self._info),
                web.post("/exchange", self._exchange),
                web.get("/ws", self._ws),
                web.get("/_venue/log", self._get_log),
                web.get("/_venue/state", self._get_state),
                web.post("/_venue/control", self._control),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
        await self._runner.setup()
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(certificate)
        self._http_port = await self._listen(port, None)
        tls_port = await self._listen(0, tls)
        self._proxy = Proxy(tls_port, self._record)
        proxy_port = await self._proxy.start()
        for work in (self.market.play(), self.market.roll()):
            self._spawn(work)
        base = f"127.0.0.1:{self._http_port}"
        return {
            "base_url_ws": f"ws://{base}/ws",
            "control": f"http://{base}/_venue",
            "env": {
                "SSL_CERT_FILE": str(ca.resolve()),
                "HTTPS_PROXY": f"http://127.0.0.1:{proxy_port}",
                "NO_PROXY": "127.0.0.1,localhost",
            },
            "data": self.market.tape.label,
        }

    async def stop(self) -> None:
        """Close the doors."""
        for task in self._tasks:
            task.cancel()
        self._proxy.stop()
        await self._runner.cleanup()

    async def _listen(self, port: int, tls: ssl.SSLContext | None) -> int:
        site = web.TCPSite(self._runner, "127.0.0.1", port, ssl_context=tls)
        await site.start()
        found: int = self._runner.addresses[-1][1]
        return found

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._record("error", text=repr(error))
            asyncio.get_running_loop().call_exception_handler({"message": "venue", "exception": error})

    def _record(self, kind: str, **what: Any) -> None:
        self.log.append({"n": len(self.log), "t": round(time.time(), 4), "kind": kind, **what})

    # HTTP

    async def _info(self, request: web.Request) -> web.StreamResponse:
        try:
            query = json.loads(await request.text())
            kind = query["type"]
        except (ValueError, TypeError, KeyError):
            return web.json_response("Failed to deserialize the JSON body into the target type", status=422)
        self._record("info", body=query, tls=request.secure, host=request.host)
        await asyncio.sleep(self.options["info_delay_ms"] / 1e3)
        if self.options["info_status"] != 200 or kind in self.options["info_fail"]:
            status = self.options["info_status"]
            return web.json_response(None, status=500 if status == 200 else status)
        answer = answers(self.market, self.exchange, self.options["missing"]).get(kind)
        if answer is None:
            return web.json_response("Failed to deserialize the JSON body into the target type", status=422)
        try:
            return web.json_response(answer(query))
        except (KeyError, TypeError) as e:
            return web.json_response(f"Failed to deserialize the JSON body ({e!r})", status=422)

    async def _exchange(self, request: web.Request) -> web.StreamResponse:
        payload = json.loads(await request.text())
        self._record("exchange", action=payload["action"])
        answer = self._act(payload["action"])
        if answer is None:
            await asyncio.sleep(3_600)
        self._flush()
        return web.json_response(answer)

    # WebSocket

    async def _ws(self, request: web.Request) -> web.StreamResponse:
        if not self.options["accept"]:
            self._record("refused")
            return web.Response(status=503)
        socket = web.WebSocketResponse(autoping=False)
        await socket.prepare(request)
        connection = _Connection(self._numbers, socket, request)
        self._numbers += 1
        self._connections.append(connection)
        self._record("open", connection=connection.number)
        try:
            async for message in socket:
                if message.type == WSMsgType.PING and not self.options["frozen"]:
                    await socket.pong(message.data)
                elif message.type == WSMsgType.TEXT and not self.options["frozen"]:
                    await self._take(connection, message.data)
        except (ConnectionError, RuntimeError):
            pass
        finally:
            self._connections.remove(connection)
            self._record("close", connection=connection.number, code=socket.close_code)
        return socket

    async def _take(self, connection: _Connection, text: str) -> None:
        try:
            request = json.loads(text)
            method = request["method"]
            subscription = request.get("subscription", {})
            key = _key(subscription)
            if subscription.get("coin", COINS[0]) not in COINS:
                raise ValueError(subscription)
        except (ValueError, TypeError, KeyError):
            self._record("in", connection=connection.number, text=text)
            error = "Error parsing JSON into valid websocket request"
            await self._send(connection, {"channel": "error", "data": error})
            return
        if method == "ping":
            await self._send(connection, {"channel": "pong"})
        elif method == "post":
            self._spawn(self._post(connection, request))
        elif method in ("subscribe", "unsubscribe"):
            self._record(method, connection=connection.number, subscription=subscription)
            if method == "subscribe":
                connection.subscriptions[key] = subscription
            else:
                connection.subscriptions.pop(key, None)
            told = subscription
            if subscription["type"] == "l2Book":
                told = {"nSigFigs": None, "mantissa": None} | subscription
            data = {"method": method, "subscription": told}
            await self._send(connection, {"channel": "subscriptionResponse", "data": data})
            if method == "subscribe":
                await self._snapshot(connection, subscription)

    async def _snapshot(self, connection: _Connection, subscription: dict[str, Any]) -> None:
        """Send what the venue sends on subscribing."""
        kind, coin, market = subscription["type"], str(subscription.get("coin")), self.market
        if kind == "trades" and self.options["replay"] and market.trades[coin]:
            trades = list(market.trades[coin])[-10:]
            await self._send(connection, {"channel": "trades", "data": trades})
        elif kind == "l2Book":
            await self._send(connection, {"channel": "l2Book", "data": market.books[coin]})
        elif kind == "bbo" and "bbo" not in market.without:
            await self._send(connection, {"channel": "bbo", "data": market.bbo(coin)})
        elif kind == "allMids":
            await self._send(connection, {"channel": "allMids", "data": {"mids": market.mids()}})
        elif kind == "userFills":
            data = {"isSnapshot": True, "user": subscription["user"], "fills": self.exchange.fills[::-1]}
            await self._send(connection, {"channel": "userFills", "data": data})

    async def _post(self, connection: _Connection, request: dict[str, Any]) -> None:
        body = request["request"]
        if body["type"] == "info":
            payload: Any = {"type": body["payload"]["type"], "data": None}
            with contextlib.suppress(KeyError):
                table = answers(self.market, self.exchange, self.options["missing"])
                payload["data"] = table[body["payload"]["type"]](body["payload"])
            answer = {"type": "info", "payload": payload}
        else:
            action = body["payload"]["action"]
            self._record("post", connection=connection.number, action=action, nonce=body["payload"]["nonce"])
            await asyncio.sleep(self.options["post_delay_ms"] / 1e3)
            result = self._act(action)
            if result is None:
                return
            self._record("answer", body=result)
            answer = {"type": "action", "payload": result}
        data = {"id": request["id"], "response": answer}
        await self._send(connection, {"channel": "post", "data": data})
        self._flush()

    def _act(self, action: dict[str, Any]) -> dict[str, Any] | None:
        """Carry out an action; None if the user is not to hear of it."""
        if self.exchange.is_lost(action):
            return None
        answer = self.exchange.execute(action)
        if self.exchange.mode == "mute":
            self.exchange.outbox.clear()
            return None
        return answer

    def _flush(self) -> None:
        """Tell the user what has become of orders."""
        pushes, self.exchange.outbox = self.exchange.outbox, []
        for push in pushes:
            self._record("user", body=push)
            channel = {"user": "userEvents"}.get(push["channel"], push["channel"])
            for connection in self._connections:
                if any(s["type"] == channel for s in connection.subscriptions.values()):
                    self._spawn(self._send(connection, push))

    def _moved(self, coin: str) -> None:
        self.exchange.match(coin)
        if self.exchange.mode == "mute":
            self.exchange.outbox.clear()
        self._flush()

    async def _publish(self, key: str, message: Any) -> None:
        listeners = [c for c in self._connections if key in c.subscriptions]
        if listeners and callable(message):
            message = message()
        for connection in listeners:
            await self._send(connection, message)

    async def _send(self, connection: _Connection, message: Any) -> None:
        if self.options["frozen"] or connection.socket.closed:
            return
        with contextlib.suppress(ConnectionError, RuntimeError):
            if isinstance(message, bytes):
                await connection.socket.send_bytes(message)
            else:
                await connection.socket.send_str(message if isinstance(message, str) else json.dumps(message))

    # Control

    async def _get_log(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(self.log[int(request.query.get("since", 0)) :])

    async def _get_state(self, request: web.Request) -> web.StreamResponse:
        exchange, value = self.exchange, self.exchange.value()[0]
        return web.json_response(
            {
                "data": self.market.tape.label,
                "connections": {c.number: sorted(c.subscriptions) for c in self._connections},
                "options": self.options,
                "mode": exchange.mode,
                "positions": {coin: str(size) for coin, (size, _) in exchange.positions.items()},
                "orders": exchange.open_orders(),
                "fills": exchange.fills,
                "account_value": float(value),
                "cash": float(exchange.cash),
                "prices": {c: [float(x) for x in self.market.top(c)] for c in COINS},
                "loops": self.market.loops,
            }
        )

    async def _control(self, request: web.Request) -> web.StreamResponse:
        order = await request.json()
        try:
            await self._carry_out(dict(order))
        except (KeyError, TypeError, ValueError) as e:
            return web.json_response({"error": f"{order}: {e!r}"}, status=400)
        self._record("control", **{k: v for k, v in order.items() if k != "kind"})
        self._flush()
        return web.json_response({"log": len(self.log)})

    async def _carry_out(self, order: dict[str, Any]) -> None:
        what = order.pop("do")
        if what == "drop":
            abort = {"close": False, "abort": True}[order["mode"]]
            for connection in list(self._connections):
                if abort and connection.request.transport is not None:
                    connection.request.transport.abort()
                else:
                    self._spawn(_close(connection.socket))
        elif what == "malformed":
            text = b"\x00\xff\xfe" if order["how"] == "binary" else _MALFORMED[order["how"]]
            for connection in list(self._connections):
                await self._send(connection, text)
        elif what == "send":
            for connection in list(self._connections):
                await self._send(connection, order["text"])
        elif what == "set":
            if unknown := order.keys() - self.options.keys():
                raise ValueError(f"no such option: {sorted(unknown)}")
            self.options.update(order)
        elif what == "orders":
            for name, value in order.items():
                if name not in ("mode", "reject", "lose", "fill_fraction", "auto_cancel"):
                    raise ValueError(f"no such option of orders: {name}")
                setattr(self.exchange, name, value)
        elif what == "feed":
            for name, value in order.items():
                if name not in ("paused", "without", "duplicates"):
                    raise ValueError(f"no such option of the feed: {name}")
                setattr(self.market, name, set(value) if name == "without" else value)
        elif what == "skip_candles":
            self.market.skip[order["coin"]] = order["count"] + 1  # the one in the making is cut off, too
        elif what == "move":
            await self.market.move(order["coin"], order["factor"])
        elif what == "trade":
            self.exchange.trade(order["coin"], order["side"] == "buy", order["size"])
        elif what == "cancel":
            self.exchange.execute({"type": "cancel", "cancels": [{"o": order["oid"]}]})
        else:
            raise ValueError(f"cannot {what!r}")


def _key(subscription: dict[str, Any]) -> str:
    parts = (subscription.get(name) for name in ("type", "coin", "interval", "user"))
    return ":".join(part for part in parts if part is not None)


async def _close(socket: web.WebSocketResponse) -> None:
    await socket.close(code=1001)
