"""A TCP connection on loopback that can be taken away, fall silent, or be reset in the middle of a request."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress

from tests.stack.processes import free_port

CHUNK_BYTES = 16 * 1024
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Wire:
    """What connects to ``port`` is connected to ``target`` (host:port).

    ``reset_after``, if set, is asked for a number of bytes: when so many more have gone towards the target, the
    connection that carries them is reset (RST, both ends), and it is asked again. ``resets`` counts that.
    """

    def __init__(self, target: str) -> None:
        host, port = target.rsplit(":", 1)
        self.port = free_port()
        self.resets = 0
        self._target = (host, int(port))
        self._reset_after: Callable[[], int] | None = None
        self._left = 0
        self._heard = threading.Event()
        self._heard.set()
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._listener: socket.socket | None = None
        self.open()

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self.port}"

    # --- What can happen to it -------------------------------------------------------------------------------------

    def open(self) -> None:
        """Be there, and let everything through."""
        self._reset_after = None
        self._heard.set()
        if self._listener is None:
            self._listener = socket.create_server(("127.0.0.1", self.port))
            threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def close(self) -> None:
        """Be gone: connections are reset, others refused."""
        listener, self._listener = self._listener, None
        if listener is not None:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
            listener.close()
        with self._lock:
            ends = list(self._open)
        for end in ends:
            self._reset(end)
        self._heard.set()  # wakes the threads that hold back what can go nowhere any more

    def fall_silent(self) -> None:
        """Connections stay, and nothing gets through in either direction, as when packets are dropped."""
        self._heard.clear()

    def reset_each(self, reset_after: Callable[[], int]) -> None:
        """From here on, see `reset_after` above."""
        self._left = reset_after()
        self._reset_after = reset_after

    # --- Threads ---------------------------------------------------------------------------------------------------

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                source, _ = listener.accept()
            except OSError:
                return
            try:
                target = socket.create_connection(self._target)
            except OSError:  # who is behind it is not there: nor is the connection
                self._reset(source)
                continue
            with self._lock:
                self._open |= {source, target}
            for ends, forth in (((source, target), True), ((target, source), False)):
                threading.Thread(target=self._pump, args=(*ends, forth), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, forth: bool) -> None:
        with suppress(OSError):
            while data := source.recv(CHUNK_BYTES):
                self._heard.wait()
                if forth and (upto := self._reset_within(len(data))) is not None:
                    sink.sendall(data[:upto])
                    break
                sink.sendall(data)
        self._reset(source)
        self._reset(sink)

    def _reset_within(self, size: int) -> int | None:
        """How many of the next bytes go through before the reset, if it falls into them."""
        with self._lock:
            if self._reset_after is None:
                return None
            if size < self._left:
                self._left -= size
                return None
            upto, self._left = self._left, self._reset_after()
            self.resets += 1
            return upto

    def _reset(self, end: socket.socket) -> None:
        with self._lock:
            self._open.discard(end)
        with suppress(OSError):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            end.shutdown(socket.SHUT_RD)  # wakes the thread that reads it
        end.close()
