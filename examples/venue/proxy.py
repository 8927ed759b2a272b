"""A proxy that dials nothing but the stub's own TLS port, whatever it is asked for."""

import asyncio
import contextlib
from collections.abc import Callable

from examples.venue.certificates import HOSTS


class Proxy:
    """Takes `CONNECT` for the venue's host names.

    Parameters
    ----------
    tls_port : int
        Where to connect to instead.
    record : callable
        Called with the kind 'proxy' and what was asked for.
    """

    def __init__(self, tls_port: int, record: Callable[..., None]) -> None:
        self._tls_port, self._record = tls_port, record

    async def start(self) -> int:
        """Listen; return the port."""
        self._server = await asyncio.start_server(self._tunnel, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def stop(self) -> None:
        """Listen no longer."""
        self._server.close()

    async def _tunnel(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, TimeoutError):
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
            verb, target, _ = head.decode("latin1").split(" ", 2)
            self._record("proxy", verb=verb, target=target)
            if verb != "CONNECT" or target not in {f"{host}:443" for host in HOSTS}:
                writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
                await writer.drain()
            else:
                far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._tls_port)
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                await asyncio.gather(_pipe(reader, far_writer), _pipe(far_reader, writer))
        writer.close()


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()
