"""A proxy in front of Redis that holds back commands and loses answers, as networks do."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable


class HoldingProxy:
    """Passes bytes on, but can hold back what clients send, even beyond their connection, and can swallow answers."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.hold: Callable[[bytes], bool] = lambda data: False
        self.held: list[tuple[socket.socket, bytes]] = []
        self.lose_answers = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def release(self) -> None:
        for server, data in self.held:
            server.sendall(data)
        time.sleep(0.3)
        for server, _ in self.held:
            server.close()

    def _accept(self) -> None:
        while True:
            client, _ = self._listener.accept()
            server = socket.create_connection(("127.0.0.1", self._target_port))
            threading.Thread(target=self._up, args=(client, server), daemon=True).start()
            threading.Thread(target=self._down, args=(client, server), daemon=True).start()

    def _up(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(65_536):
                if self.hold(data):
                    self.hold = lambda data: False
                    self.held.append((server, data))
                    return  # and the client hears nothing any more
                server.sendall(data)
        server.close()

    def _down(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(65_536):
                if self.lose_answers.is_set() and b"QUEUED" in data:
                    self.lose_answers.clear()
                    client.shutdown(
                        socket.SHUT_RDWR
                    )  # closing it would be no news while another thread reads it
                    return
                client.sendall(data)
            client.close()
