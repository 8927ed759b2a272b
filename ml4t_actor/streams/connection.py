"""A connection to Redis that says what went wrong, hides nothing, and takes no more than it asked for."""

import os
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from types import TracebackType
from typing import Any, Self

from ml4t_actor.settings import RedisSettings

SMALL_ANSWER_BYTES = 65_536
HEAD_BYTES = 4_096
BACKOFF_MIN_S = 0.05

_ERROR_LENGTH_MAX = 300


class RedisAwayError(Exception):
    """Redis could not be reached or did not answer: what became of the last command is not known."""


class RedisDeniedError(RedisAwayError):
    """Redis wants another password or account."""


class RedisRefusedError(Exception):
    """Redis answered with an error: the command had no effect."""


class TransactionDroppedError(RedisRefusedError):
    """A watched key has changed, so a transaction had no effect; it can be tried again on another connection."""


class AnswerTooLargeError(Exception):
    """An answer was larger than asked for; the connection is closed.

    Attributes
    ----------
    head : bytes
        How the answer began.
    """

    def __init__(self, limit: int, head: bytes) -> None:
        super().__init__(f"Redis sent more than {limit} bytes in one answer")
        self.head = head


class _MeteredSocket:
    """A socket that gives no more bytes than it is allowed to."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.head = b""
        self._limit = self._left = SMALL_ANSWER_BYTES

    def allow(self, limit: int) -> None:
        self._limit = self._left = limit
        self.head = b""

    def recv(self, size: int) -> bytes:
        data = self.socket.recv(size)
        self._count(data)
        return data

    def recv_into(self, buffer: Any, *sizes: int) -> int:
        n = self.socket.recv_into(buffer, *sizes)
        self._count(memoryview(buffer)[:n])
        return n

    def _count(self, data: bytes | memoryview) -> None:
        if len(self.head) < HEAD_BYTES:
            self.head += bytes(data[: HEAD_BYTES - len(self.head)])
        self._left -= len(data)
        if self._left < 0:
            raise AnswerTooLargeError(self._limit, self.head)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.socket, name)


class RedisLink:
    """One connection to Redis, used by one thread.

    It neither retries nor reconnects, and an answer that is larger than allowed ends it: that is for its user to
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
        self._connection: Any = None  # redis-py's types are not strict

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.settings.host}:{self.settings.port})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
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
        options: dict[str, Any] = {
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
        self._guarded(connection.connect)

    def close(self) -> None:
        """End the connection, if there is one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.disconnect()

    def interrupt(self) -> None:
        """From any thread: let whatever waits for Redis fail now."""
        metered = getattr(self._connection, "_sock", None)
        if metered is not None:
            with suppress(OSError):  # closed already
                # Not SSLSocket's own: that is not meant to be called while another thread reads.
                socket.socket.shutdown(metered.socket, socket.SHUT_RDWR)

    def ping(self) -> None:
        """Ask Redis for a sign of life; errors as of `ask`."""
        self.ask("PING")

    def ask(self, *command: str | bytes | int, limit: int = SMALL_ANSWER_BYTES) -> Any:
        """Send one command and return its answer, as RESP2 has it: bytes, integers, None and lists of them.

        Parameters
        ----------
        *command
            Name and arguments.
        limit : int
            Most bytes of the answer.

        Raises
        ------
        RedisAwayError, RedisRefusedError, AnswerTooLargeError
            After the first and the last the connection is closed.
        """
        return self._guarded(lambda: self._exchange([command], limit)[0])

    def ask_together(self, *commands: Sequence[str | bytes | int], then: Sequence[str] = ()) -> list[Any]:
        """Run commands as one transaction and return their answers: all had their effect, or none had.

        Parameters
        ----------
        *commands
            Names and arguments.
        then : sequence of str
            A command to run after the transaction, in the same journey.

        Raises
        ------
        RedisAwayError
            If it is not known whether they had.
        RedisRefusedError
            If none had; also if a watched key has changed.
        """

        def run() -> list[Any]:
            errors = _redis().ResponseError
            journey = [("MULTI",), *commands, ("EXEC",), *((then,) if then else ())]
            *queued, executed = self._exchange(journey, SMALL_ANSWER_BYTES)[: len(commands) + 2]
            if executed is None:
                raise TransactionDroppedError("Redis dropped a transaction, since its fence has moved")
            if isinstance(executed, errors):
                raise next((answer for answer in queued if isinstance(answer, errors)), executed)
            failed = [answer for answer in executed if isinstance(answer, errors)]
            if len(failed) == len(executed):
                raise failed[0]
            if failed:
                raise RedisAwayError(f"Redis took a part of a transaction only: {failed[0]}")
            return list(executed)

        return list(self._guarded(run))

    def _exchange(self, commands: Sequence[Sequence[str | bytes | int]], limit: int) -> list[Any]:
        connection = self._connection
        if connection is None or (metered := connection._sock) is None:
            raise RedisAwayError("there is no connection")
        metered.allow(limit)
        connection.send_packed_command(connection.pack_commands(commands), check_health=False)
        if len(commands) == 1:
            return [connection.read_response()]
        answers = []
        for _ in commands:
            try:
                answers.append(connection.read_response())
            except _redis().ResponseError as e:
                answers.append(e)
        return answers

    def _guarded(self, function: Callable[[], Any]) -> Any:
        """Run `function`, with redis-py's many errors made into ours; they are not chained, since they hold frames."""
        redis = _redis()
        try:
            return function()
        except redis.AuthenticationError as e:
            failure: Exception = RedisDeniedError(self._shown(e))
        except redis.ResponseError as e:
            raise RedisRefusedError(self._shown(e)) from None
        except (redis.RedisError, OSError) as e:
            failure = RedisAwayError(self._shown(e))
        except BaseException:
            self.close()
            raise
        self.close()
        raise failure from None

    def _shown(self, error: BaseException) -> str:
        """Return the text of an error, without the password: Redis repeats arguments that it does not understand."""
        code = getattr(error, "status_code", None) or ""
        text = f"{code} {error}".strip() or type(error).__name__
        if self._secret:
            text = text.replace(self._secret, "***")
        return text if len(text) <= _ERROR_LENGTH_MAX else f"{text[:_ERROR_LENGTH_MAX]}..."


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

    def pause_s(self) -> float:
        """Return how long to wait now, seconds."""
        pause, self._next_s = self._next_s, min(2.0 * self._next_s, self._longest_s)
        return pause


@cache
def _redis() -> Any:
    try:
        import redis
    except ImportError as e:
        raise ImportError(
            "Redis streams need redis-py: `pip install ml4t_actor[redis]`, or set `redis_enabled=False`"
        ) from e
    return redis


@cache
def _connection_class(ssl: bool) -> Any:
    redis = _redis()
    base: Any = redis.SSLConnection if ssl else redis.Connection

    class MeteredConnection(base):  # type: ignore[misc]
        def _connect(self) -> Any:
            return _MeteredSocket(super()._connect())

    return MeteredConnection


def _no_retry() -> Any:
    _redis()
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    return Retry(NoBackoff(), 0)  # redis-py's own would send a command twice
