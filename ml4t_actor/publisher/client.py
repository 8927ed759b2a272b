"""`SignalPublisher`."""

import time
import uuid
from collections.abc import Iterable, Mapping
from typing import Self
from urllib.parse import unquote, urlsplit

from ml4t_actor.publisher.signals import checked_signal
from ml4t_actor.settings import RedisSettings
from ml4t_actor.streams.codec import SIGNAL_TYPE, Encoding, Scalar, encode, identity, topic_of
from ml4t_actor.streams.connection import (
    Backoff,
    RedisAwayError,
    RedisDeniedError,
    RedisLink,
    RedisRefusedError,
    TransactionDroppedError,
)
from ml4t_actor.streams.writer import BATCH_ENTRIES, Outgoing, StreamWriter

STREAM = "nautilus:signals"
PASSWORD_ENV = RedisSettings().password_env


class SignalPublisher:
    """Publishes trading signals to a Redis stream, each once.

    The values of a signal are checked here as the node checks them. A publication that is cut off, by a restart of
    Redis for example, is looked for on the next connection and repeated if it is not there.

    Parameters
    ----------
    host : str, default '127.0.0.1'
        Of the server.
    port : int, default 6379
        Of the server.
    url : str, optional
        Instead of host, port, database, username, password and ssl: ``redis://user:password@host:port/database``, or
        ``rediss://`` for TLS.
    stream : str, default 'nautilus:signals'
        Key of the stream: what the node has as `redis_channel_signals`.
    database : int, default 0
        Number of the database.
    username : str, optional
        The account, where the server has them.
    password : str, optional
        By default what the environment variable `password_env` holds, if anything.
    password_env : str, default 'ML4T_REDIS_PASSWORD'
        See `password`.
    ssl : bool, default False
        Use TLS, and verify the server's certificate.
    ssl_ca : str, optional
        File of the certificate authority, where the system does not know it.
    encoding : {'msgpack', 'json'}, default 'msgpack'
        Of the payload. The actor reads both; NautilusTrader's own reader what its `MessageBusConfig` says.
    stream_length : int, default 1_000_000
        About how many signals the stream is to hold; Redis drops older ones.
    timeout_seconds : float, default 5.0
        For connecting, and for one answer.
    retry_seconds : float, default 30.0
        How long an attempt is repeated before it raises.

    Raises
    ------
    ImportError
        If redis-py is not installed.
    ValueError
        If a setting is out of range.

    Examples
    --------
    ::

        with SignalPublisher(host="10.0.0.5") as publisher:
            publisher.publish("BTC-USD-PERP.HYPERLIQUID", signal=1, strength=0.7, source="trend")
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 6379,
        *,
        url: str | None = None,
        stream: str = STREAM,
        database: int = 0,
        username: str | None = None,
        password: str | None = None,
        password_env: str = PASSWORD_ENV,
        ssl: bool = False,
        ssl_ca: str | None = None,
        encoding: Encoding = "msgpack",
        stream_length: int = 1_000_000,
        timeout_seconds: float = 5.0,
        retry_seconds: float = 30.0,
    ) -> None:
        if encoding not in ("msgpack", "json"):
            raise ValueError(f"`encoding` was {encoding!r}, must be 'msgpack' or 'json'")
        if url is not None:
            host, port, database, username, password, ssl = _address(url, username, password)
        settings = RedisSettings(
            host=host,
            port=port,
            database=database,
            username=username,
            password_env=password_env,
            ssl=ssl,
            ssl_ca=ssl_ca,
            timeout_seconds=timeout_seconds,
            stream_length=stream_length,
        )
        self._encoding: Encoding = encoding
        self._retry_seconds = retry_seconds
        self._longest_pause_s = settings.retry_max_seconds
        self._link = RedisLink(settings, None if password is None else lambda: password)
        self._writer = StreamWriter(
            self._link, stream, length=stream_length, node="", writer=uuid.uuid4().hex, after=None
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._link!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the connection; the next publication makes another."""
        self._link.close()

    def publish(
        self,
        instrument_id: str,
        signal: int,
        strength: float,
        source: str,
        signal_id: str | None = None,
        ts_event: int | None = None,
    ) -> str:
        """Publish one signal and return the id of its entry in the stream.

        Parameters
        ----------
        instrument_id : str
            Such as ``BTC-USD-PERP.HYPERLIQUID``.
        signal : int
            -1 (short), 0 (flat) or 1 (long).
        strength : float
            How strong by the source's own measure, in [0, 1].
        source : str
            Name of what made it, 1 to 128 printable characters.
        signal_id : str, optional
            Unique per source, 1 to 128 printable characters; by default one is made.
        ts_event : int, optional
            When the signal arose, UNIX nanoseconds; by default now.

        Raises
        ------
        ValueError
            If a value breaks its rule; nothing is published.
        RedisDeniedError, RedisRefusedError
            If Redis refuses, at once.
        RedisAwayError
            If Redis could not be reached for `retry_seconds`; the signal may have been published.
        """
        values = {
            "instrument_id": instrument_id,
            "signal": signal,
            "strength": strength,
            "source": source,
            "signal_id": signal_id,
            "ts_event": ts_event,
        }
        return self.publish_many([values])[0]

    def publish_many(self, signals: Iterable[Mapping[str, object]]) -> list[str]:
        """Publish signals in order and return the ids of their entries.

        Parameters
        ----------
        signals : iterable of mappings
            With the arguments of `publish`.

        Raises
        ------
        ValueError, RedisDeniedError, RedisRefusedError, RedisAwayError
            As `publish` does. All values are checked first; of many signals some may have been published before Redis
            refused or went away.
        """
        checked = [checked_signal(values) for values in signals]
        ids: list[str] = []
        for i in range(0, len(checked), BATCH_ENTRIES):
            ids += self._send([self._outgoing(values) for values in checked[i : i + BATCH_ENTRIES]])
        return ids

    def _outgoing(self, values: dict[str, Scalar]) -> Outgoing:
        topic = topic_of(SIGNAL_TYPE, str(values["instrument_id"]))
        return Outgoing(identity(values), encode(values, topic, encoding=self._encoding))

    def _send(self, batch: list[Outgoing]) -> list[str]:
        ids: dict[int, str] = {}
        unverified = False
        deadline = time.monotonic() + self._retry_seconds
        backoff = Backoff(self._longest_pause_s)
        while True:
            try:
                if unverified or not self._link.is_open:
                    ids = self._writer.open(batch if unverified else [])
                    unverified = False
                todo = [i for i in range(len(batch)) if i not in ids]
                if todo:
                    unverified = True
                    ids |= zip(todo, self._writer.append([batch[i] for i in todo]), strict=True)
                return [ids[i] for i in range(len(batch))]
            except RedisDeniedError:
                raise
            except (RedisAwayError, TransactionDroppedError) as e:
                self._link.close()
                unverified = unverified and isinstance(e, RedisAwayError)
                pause = backoff.next_pause_s()
                if time.monotonic() + pause >= deadline:
                    raise
                time.sleep(pause)
            except RedisRefusedError:
                self._link.close()
                raise


def _address(
    url: str, username: str | None, password: str | None
) -> tuple[str, int, int, str | None, str | None, bool]:
    try:
        parts = urlsplit(url)
        port, database = parts.port or 6379, int(parts.path.strip("/") or 0)
        known = parts.scheme in ("redis", "rediss") and parts.hostname and database >= 0
    except ValueError:
        known = False
    if not known:  # not shown: it may hold the password
        raise ValueError(
            "`url` must be like redis://user:password@host:6379/0, or rediss:// for TLS"
        ) from None
    return (
        str(parts.hostname),
        port,
        database,
        unquote(parts.username) if parts.username else username,
        unquote(parts.password) if parts.password else password,
        parts.scheme == "rediss",
    )
