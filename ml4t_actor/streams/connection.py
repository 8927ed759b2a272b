"""A connection to Redis that says what went wrong, hides nothing, and reads no more than it requested."""

import os
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from types import ModuleType
from typing import Protocol, Self

from ml4t_actor.settings import RedisSettings

SMALL_REPLY_BYTES = 65_536
HEAD_BYTES = 4_096
BACKOFF_MIN_S = 0.05

_ERROR_LENGTH_MAX = 300

type Argument = str | bytes | int
type Reply = bytes | int | list[Reply] | None
"""What Redis replies to a command, as RESP2 has it."""


class RedisAwayError(Exception):
    """Redis could not be reached or did not answer: what became of the last command is not known."""


class RedisDeniedError(RedisAwayError):
    """Redis wants another password or account."""


class RedisRefusedError(Exception):
    """Redis answered with an error: the command had no effect."""


class TransactionDroppedError(RedisRefusedError):
    """A watched key has changed, so a transaction had no effect; it can be tried again on another connection."""


class ReplyTooLargeError(Exception):
    """A reply was larger than allowed; the connection is closed.

    Attributes
    ----------
    head : bytes
        How the reply began.
    """

    def __init__(self, limit: int, head: bytes) -> None:
        super().__init__(f"Redis sent more than {limit} bytes in one reply")
        self.head = head


class _MeteredSocket:
    """A socket that reads no more bytes than it is allowed to."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.head = b""
        self._limit = self._left = SMALL_REPLY_BYTES

    def set_limit(self, limit: int) -> None:
        self._limit = self._left = limit
        self.head = b""

    def recv(self, size: int) -> bytes:
        data = self.socket.recv(size)
        self._count(data)
        return data

    def recv_into(self, buffer: bytearray | memoryview, *sizes: int) -> int:
        n = self.socket.recv_into(buffer, *sizes)
        self._count(memoryview(buffer)[:n])
        return n

    def _count(self, data: bytes | memoryview) -> None:
        if len(self.head) < HEAD_BYTES:
            self.head += bytes(data[: HEAD_BYTES - len(self.head)])
        self._left -= len(data)
        if self._left < 0:
            raise ReplyTooLargeError(self._limit, self.head)

    def __getattr__(self, name: str) -> object:
        return getattr(self.socket, name)


class _Connection(Protocol):
    """What is used of a connection of redis-py, whose own types are not strict."""

    metered: _MeteredSocket | None

    def connect(self) -> None: ...

    def disconnect(self) -> None: ...

    def pack_commands(self, commands: Sequence[Sequence[Argument]]) -> list[bytes]: ...

    def send_packed_command(self, command: list[bytes], _check_health: bool = True, /) -> None: ...

    def read_response(self) -> Reply: ...


class RedisLink:
    """One connection to Redis, used by one thread.

    It neither retries nor reconnects, and a reply that is larger than allowed ends it: that is for its user to
    deal with, who knows what may be repeated. Errors carry no password.

    Parameters
    ----------
    settings : RedisSettings
        Where, and as whom.
    password : callable, optional
        Gives the password; by default it is read from the environment at each `open`.

    Raises
    ------
    ImportError
        If redis-py is not installed.
    """

    def __init__(self, settings: RedisSettings, password: Callable[[], str | None] | None = None) -> None:
        _redis()
        self.settings = settings
        self._password = password or (lambda: os.environ.get(settings.password_env))
        self._secret = ""
        self._connection: _Connection | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.settings.host}:{self.settings.port})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def is_open(self) -> bool:
        """Whether there is a connection, as far as is known."""
        return self._connection is not None

    def open(self) -> None:
        """Connect, anew if need be, and log in.

        Raises
        ------
        RedisAwayError, RedisDeniedError, RedisRefusedError
            If that fails.
        """
        self.close()
        settings = self.settings
        self._secret = self._password() or ""
        if settings.ssl and settings.ssl_ca is not None and not os.path.exists(settings.ssl_ca):
            raise RedisAwayError(f"`ssl_ca` names the file {settings.ssl_ca!r}, which does not exist")
        options: dict[str, object] = {
            "host": settings.host,
            "port": settings.port,
            "db": settings.database,
            "username": settings.username,
            "password": self._secret.encode(errors="surrogateescape"),
            "socket_timeout": settings.timeout_seconds,
            "socket_connect_timeout": settings.timeout_seconds,
            "retry": _no_retry(),
            "protocol": 2,
        }
        if settings.ssl:
            options |= {
                "ssl_cert_reqs": "required",
                "ssl_check_hostname": True,
                "ssl_ca_certs": settings.ssl_ca,
            }
        connection = _connection_class(settings.ssl)(**options)
        self._connection = connection
        self._with_own_errors(connection.connect)
        if connection.metered is None:
            self.close()
            raise RuntimeError(
                f"redis-py {_redis().__version__} does not make its socket in `_connect`, so that replies could not be "
                "bounded; install a version that ml4t_actor allows: `pip install 'ml4t_actor[redis]'`"
            )

    def close(self) -> None:
        """End the connection, if there is one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.disconnect()

    def interrupt(self) -> None:
        """From any thread: let whatever waits for Redis fail now."""
        connection = self._connection
        metered = None if connection is None else connection.metered
        if metered is not None:
            with suppress(OSError):  # closed already
                # Not SSLSocket's own: that is not meant to be called while another thread reads.
                socket.socket.shutdown(metered.socket, socket.SHUT_RDWR)

    def ping(self) -> None:
        """Check that Redis replies; errors as of `execute`."""
        self.execute("PING")

    def execute(self, *command: Argument, limit: int = SMALL_REPLY_BYTES) -> Reply:
        """Send one command and return its reply.

        Parameters
        ----------
        *command
            Name and arguments.
        limit : int
            Most bytes of the reply.

        Raises
        ------
        RedisAwayError, RedisRefusedError, ReplyTooLargeError
            After the first and the last the connection is closed.
        """

        def run() -> Reply:
            connection = self._send([command], limit)
            return connection.read_response()

        return self._with_own_errors(run)

    def execute_transaction(
        self, *commands: Sequence[Argument], then: Sequence[Argument] = ()
    ) -> list[Reply]:
        """Run commands as one transaction and return their replies: all had their effect, or none had.

        Parameters
        ----------
        *commands
            Names and arguments.
        then : sequence of str
            A command to run after the transaction, in the same round trip.

        Raises
        ------
        RedisAwayError
            If it is not known whether they had.
        RedisRefusedError
            If none had; also if a watched key has changed.
        """

        def run() -> list[Reply]:
            connection = self._send(
                [("MULTI",), *commands, ("EXEC",), *((then,) if then else ())], SMALL_REPLY_BYTES
            )
            queued = [_reply_or_error(connection) for _ in range(len(commands) + 1)]
            executed = _reply_or_error(connection)
            if then:
                _reply_or_error(connection)
            return _executed(queued, executed)

        return self._with_own_errors(run)

    def _send(self, commands: Sequence[Sequence[Argument]], limit: int) -> _Connection:
        connection = self._connection
        if connection is None or (metered := connection.metered) is None:
            raise RedisAwayError("there is no connection")
        metered.set_limit(limit)
        connection.send_packed_command(connection.pack_commands(commands), False)  # without a PING before
        return connection

    def _with_own_errors[T](self, function: Callable[[], T]) -> T:
        """Run `function`, with redis-py's many errors made into ours; they are not chained, since they hold frames."""
        redis = _redis()
        try:
            return function()
        except redis.AuthenticationError as e:
            failure: Exception = RedisDeniedError(self._redacted(e))
        except redis.ResponseError as e:
            raise RedisRefusedError(self._redacted(e)) from None
        except (redis.RedisError, OSError) as e:
            failure = RedisAwayError(self._redacted(e))
        except BaseException:
            self.close()
            raise
        self.close()
        raise failure from None

    def _redacted(self, error: BaseException) -> str:
        """Return the text of an error, without the password: Redis repeats arguments that it does not understand."""
        code = getattr(error, "status_code", None) or ""
        text = f"{code} {error}".strip() or type(error).__name__
        if self._secret:
            text = text.replace(self._secret, "***")
        return text if len(text) <= _ERROR_LENGTH_MAX else f"{text[:_ERROR_LENGTH_MAX]}..."


def _reply_or_error(connection: _Connection) -> Reply | Exception:
    """Return the next reply, or the error that Redis replied with: of a transaction each command has one."""
    try:
        return connection.read_response()
    except _redis().ResponseError as e:
        error: Exception = e
        return error


def _executed(queued: Sequence[Reply | Exception], executed: Reply | Exception) -> list[Reply]:
    """Return the replies of a transaction's commands, given what each command and ``EXEC`` was replied with."""
    if executed is None:
        raise TransactionDroppedError("Redis dropped a transaction, since its fence has moved")
    if isinstance(executed, Exception):
        raise next((reply for reply in queued if isinstance(reply, Exception)), executed)
    if not isinstance(executed, list):
        raise RedisAwayError(f"Redis replied to a transaction with {executed!r}, not with a list")
    replies: list[Reply | Exception] = [*executed]
    failed = [reply for reply in replies if isinstance(reply, Exception)]
    if failed and len(failed) == len(replies):
        raise failed[0]
    if failed:
        raise RedisAwayError(f"Redis executed a part of a transaction only: {failed[0]}")
    return executed


def connect(settings: RedisSettings) -> RedisLink:
    """Return an open connection to Redis, a context manager.

    Raises
    ------
    RedisAwayError, RedisDeniedError, RedisRefusedError
        If Redis cannot be reached, or does not let us in.
    ImportError
        If redis-py is not installed.
    """
    link = RedisLink(settings)
    link.open()
    return link


class Backoff:
    """Pauses between attempts: from 0.05 s, doubling.

    Parameters
    ----------
    longest_s : float
        The longest pause, seconds.
    """

    def __init__(self, longest_s: float) -> None:
        self._longest_s = longest_s
        self.reset()

    def reset(self) -> None:
        """Begin again: an attempt has succeeded."""
        self._next_s = min(BACKOFF_MIN_S, self._longest_s)

    def next_pause_s(self) -> float:
        """Return how long to wait now, seconds."""
        pause, self._next_s = self._next_s, min(2.0 * self._next_s, self._longest_s)
        return pause


@cache
def _redis() -> ModuleType:
    try:
        import redis
    except ImportError as e:
        raise ImportError(
            "Redis streams need redis-py: `pip install ml4t_actor[redis]`, or set `redis_enabled=False`"
        ) from e
    return redis


@cache
def _connection_class(ssl: bool) -> Callable[..., _Connection]:
    redis = _redis()
    base: type = redis.SSLConnection if ssl else redis.Connection

    class MeteredConnection(base):  # type: ignore[misc]
        metered: _MeteredSocket | None = None

        # The only private name of redis-py that is relied on: no option of it lets one bound the size of a reply.
        def _connect(self) -> _MeteredSocket:
            self.metered = _MeteredSocket(super()._connect())
            return self.metered

        def disconnect(self, *args: object, **kwargs: object) -> None:
            self.metered = None
            super().disconnect(*args, **kwargs)

    return MeteredConnection


def _no_retry() -> object:
    _redis()
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    return Retry(NoBackoff(), 0)  # redis-py's own would send a command twice
