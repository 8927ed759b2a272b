"""The stub's doors: HTTP `/info` and `/exchange`, WebSocket `/ws`, a proxy that ends TLS, and the control of faults."""

import asyncio
import contextlib
import json
import ssl
import time
from collections.abc import Callable, Coroutine
from dataclasses import asdict, dataclass, field
from pathlib import Path

from aiohttp import WSMsgType, web

from examples.venue.answers import answers
from examples.venue.candles import CandleClock
from examples.venue.certificates import write_certificates
from examples.venue.control import read_command
from examples.venue.exchange import Exchange
from examples.venue.market import Market
from examples.venue.orders import COINS
from examples.venue.payloads import Action, Addresses, Message, Post, Query, Subscription
from examples.venue.proxy import Proxy
from examples.venue.tape import Tape

_HOUR_S = 3_600.0


@dataclass(eq=False)
class _Connection:
    number: int
    socket: web.WebSocketResponse
    request: web.Request
    subscriptions: dict[str, Subscription] = field(default_factory=dict)


@dataclass
class Options:
    """How the server behaves.

    Attributes
    ----------
    accept : bool
        Whether an upgrade to WebSocket is accepted; else it is answered with 503.
    frozen : bool
        Send nothing, pongs included, and answer nothing.
    replay : bool
        Send recent trades on subscribing.
    info_status : int
        HTTP status of every answer of `/info`.
    info_fail : list of str
        Types of `/info` that are answered with 500.
    info_delay_ms, post_delay_ms : float
        How long `/info`, and an action by WebSocket, wait for their answer.
    missing : list of str
        Coins that are not listed.
    """

    accept: bool = True
    frozen: bool = False
    replay: bool = True
    info_status: int = 200
    info_fail: list[str] = field(default_factory=list)
    info_delay_ms: float = 0
    post_delay_ms: float = 0
    missing: list[str] = field(default_factory=list)


class Server:
    """The venue on loopback.

    Attributes
    ----------
    log : list[dict]
        Recorded traffic: what came in, what the user was sent, what was done to the venue.
    options : Options
        How it behaves, which the control can change.
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
        self.log: list[Message] = []
        self.options = Options()
        self._connections: list[_Connection] = []
        self._numbers = 0
        self._clock = CandleClock(time.time() * 1e3, candle_ms, virtual_candles)
        self.market = Market(Tape(synthetic=synthetic), self._clock, self._publish, self._moved, speed)
        self.exchange = Exchange(self.market.top, equity)
        self._posts_waiting = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, folder: Path, port: int = 0) -> Addresses:
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
        for work in (self.market.play(), self.market.roll(), self._pay_funding()):
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
        bound: int = self._runner.addresses[-1][1]
        return bound

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._record("error", text=repr(error))
            asyncio.get_running_loop().call_exception_handler({"message": "venue", "exception": error})

    def _record(self, kind: str, **what: object) -> None:
        self.log.append({"n": len(self.log), "t": round(time.time(), 4), "kind": kind, **what})

    async def _pay_funding(self) -> None:
        """Pay funding at each full hour."""
        while True:
            await asyncio.sleep(
                _HOUR_S - time.time() % _HOUR_S + 0.05
            )  # lest a timer that is early pays twice
            self.exchange.fund_all()

    async def _info(self, request: web.Request) -> web.StreamResponse:
        try:
            query: Query = json.loads(await request.text())
            kind = query["type"]
        except (ValueError, TypeError, KeyError):
            return web.json_response("Failed to deserialize the JSON body into the target type", status=422)
        self._record("info", body=query, tls=request.secure, host=request.host)
        await asyncio.sleep(self.options.info_delay_ms / 1e3)
        if self.options.info_status != 200 or kind in self.options.info_fail:
            status = self.options.info_status
            return web.json_response(None, status=500 if status == 200 else status)
        answer = answers(self.market, self.exchange, self.options.missing).get(kind)
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

    async def _ws(self, request: web.Request) -> web.StreamResponse:
        if not self.options.accept:
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
                if message.type == WSMsgType.PING and not self.options.frozen:
                    await socket.pong(message.data)
                elif message.type == WSMsgType.TEXT and not self.options.frozen:
                    await self._on_text(connection, message.data)
        except (ConnectionError, RuntimeError):
            pass
        finally:
            self._connections.remove(connection)
            self._record("close", connection=connection.number, code=socket.close_code)
        return socket

    async def _on_text(self, connection: _Connection, text: str) -> None:
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
            defaults = {"nSigFigs": None, "mantissa": None} if subscription["type"] == "l2Book" else {}
            data = {"method": method, "subscription": {**defaults, **subscription}}
            await self._send(connection, {"channel": "subscriptionResponse", "data": data})
            if method == "subscribe":
                await self._snapshot(connection, subscription)

    async def _snapshot(self, connection: _Connection, subscription: Subscription) -> None:
        """Send what the venue sends on subscribing."""
        kind, coin, market = subscription["type"], str(subscription.get("coin")), self.market
        if kind == "trades" and self.options.replay and market.trades[coin]:
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

    async def _post(self, connection: _Connection, post: Post) -> None:
        request = post["request"]
        if request["type"] == "info":
            query = request["payload"]
            data: object = None
            with contextlib.suppress(KeyError):
                table = answers(self.market, self.exchange, self.options.missing)
                data = table[query["type"]](query)
            answer: Message = {"type": "info", "payload": {"type": query["type"], "data": data}}
        else:
            action, nonce = request["payload"]["action"], request["payload"]["nonce"]
            self._record("post", connection=connection.number, action=action, nonce=nonce)
            self._posts_waiting += 1
            try:
                await asyncio.sleep(self.options.post_delay_ms / 1e3)
            finally:
                self._posts_waiting -= 1
            result = self._act(action)
            if result is None:
                return
            self._record("answer", body=result, nonce=nonce)
            answer = {"type": "action", "payload": result}
        await self._send(connection, {"channel": "post", "data": {"id": post["id"], "response": answer}})
        self._flush()

    def _act(self, action: Action) -> Message | None:
        """Carry out an action; None if it gets no answer."""
        if self.exchange.is_lost(action):
            return None
        answer = self.exchange.execute(action)
        if self.exchange.mode == "mute":
            self.exchange.outbox.clear()
            return None
        return answer

    def _flush(self) -> None:
        """Send the user what has become of orders."""
        pushes, self.exchange.outbox = self.exchange.outbox, []
        for push in pushes:
            self._record("user", body=push)
            channel = "userEvents" if push["channel"] == "user" else push["channel"]
            for connection in self._connections:
                if any(s["type"] == channel for s in connection.subscriptions.values()):
                    self._spawn(self._send(connection, push))

    def _moved(self, coin: str) -> None:
        self.exchange.match(coin)
        if self.exchange.mode == "mute":
            self.exchange.outbox.clear()
        self._flush()

    async def _publish(self, key: str, message: Message | Callable[[], Message]) -> None:
        listeners = [c for c in self._connections if key in c.subscriptions]
        if not listeners:
            return
        content = message() if callable(message) else message
        for connection in listeners:
            await self._send(connection, content)

    async def _send(self, connection: _Connection, message: Message | str | bytes) -> None:
        if self.options.frozen or connection.socket.closed:
            return
        with contextlib.suppress(ConnectionError, RuntimeError):
            if isinstance(message, bytes):
                await connection.socket.send_bytes(message)
            else:
                await connection.socket.send_str(message if isinstance(message, str) else json.dumps(message))

    def drop_connections(self, *, abort: bool) -> None:
        """End every WebSocket connection, without a word if `abort`."""
        for connection in list(self._connections):
            if abort and connection.request.transport is not None:
                connection.request.transport.abort()
            else:
                self._spawn(_close(connection.socket))

    async def broadcast(self, message: str | bytes) -> None:
        """Send a frame to everybody."""
        for connection in list(self._connections):
            await self._send(connection, message)

    async def _get_log(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(self.log[int(request.query.get("since", 0)) :])

    async def _get_state(self, request: web.Request) -> web.StreamResponse:
        exchange, value = self.exchange, self.exchange.value()[0]
        return web.json_response(
            {
                "data": self.market.tape.label,
                "log": len(self.log),
                "connections": {c.number: sorted(c.subscriptions) for c in self._connections},
                "options": asdict(self.options),
                "mode": exchange.mode,
                "positions": {coin: str(size) for coin, (size, _) in exchange.positions.items()},
                "orders": exchange.open_orders(),
                "fills": exchange.fills,
                "account_value": float(value),
                "cash": float(exchange.cash),
                "prices": {c: [float(x) for x in self.market.top(c)] for c in COINS},
                "loops": self.market.loops,
                "posts_waiting": self._posts_waiting,
                "candles": {coin: candles.open_ms for coin, candles in self.market.candles.items()},
            }
        )

    async def _control(self, request: web.Request) -> web.StreamResponse:
        order = await request.json()
        try:
            await read_command(order).apply(self)
        except (KeyError, TypeError, ValueError) as e:
            return web.json_response({"error": f"{order}: {e!r}"}, status=400)
        self._record("control", **{k: v for k, v in order.items() if k != "kind"})
        self._flush()
        return web.json_response({"log": len(self.log)})


def _key(subscription: Subscription) -> str:
    parts = (
        subscription.get("type"),
        subscription.get("coin"),
        subscription.get("interval"),
        subscription.get("user"),
    )
    return ":".join(part for part in parts if part is not None)


async def _close(socket: web.WebSocketResponse) -> None:
    await socket.close(code=1001)
