"""A TCP connection between two holders of one secret.

Each end proves that it holds the secret before the other acts on a byte of it, and every message
carries its number and a code (HMAC-SHA256) under a key of this connection. Nothing is encrypted:
who reads the network sees the messages, and can neither write one nor replay one.
"""

from __future__ import annotations

import contextlib
import hmac
import secrets
import socket
import struct
from dataclasses import dataclass, field

from hpc.errors import HpcError

_NONCE = 32
_CODE = 32
_MAX_BYTES = 1 << 24
_LENGTH = struct.Struct(">Q")


class NotAuthenticatedError(HpcError):
    """The other end of a connection does not hold the secret, or something changed a message."""


@dataclass
class Connection:
    """One end of a connection whose other end has proved itself; for one thread at a time."""

    socket: socket.socket
    key: bytes
    """Of this connection alone."""
    sends: bytes
    """Role of this end, so that no message can be sent back to its sender."""
    receives: bytes
    _sent: int = field(default=0)
    _received: int = field(default=0)

    def send(self, message: bytes) -> None:
        """Send one message."""
        code = self._code(self.sends, self._sent, message)
        self.socket.sendall(_LENGTH.pack(len(message)) + code + message)
        self._sent += 1

    def receive(self) -> bytes:
        """The next message.

        Raises:
            NotAuthenticatedError: it was not sent by the other end, or not in this place.
            ConnectionError: the other end has gone.
        """
        head = receive_exactly(self.socket, _LENGTH.size + _CODE)
        (length,) = _LENGTH.unpack(head[: _LENGTH.size])
        if length > _MAX_BYTES:
            raise NotAuthenticatedError(f"a message of {length} bytes was announced")
        message = receive_exactly(self.socket, length)
        expected = self._code(self.receives, self._received, message)
        if not hmac.compare_digest(head[_LENGTH.size :], expected):
            raise NotAuthenticatedError("a message was changed on its way")
        self._received += 1
        return message

    def close(self) -> None:
        """End the connection; a thread that waits for a message gets a ConnectionError."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()

    def _code(self, role: bytes, number: int, message: bytes) -> bytes:
        return hmac.digest(self.key, role + _LENGTH.pack(number) + message, "sha256")


def accept(peer: socket.socket, secret: bytes) -> Connection:
    """The server's end, once the client has proved itself.

    Raises:
        NotAuthenticatedError: the client does not hold the secret.
        ConnectionError, TimeoutError: it has gone, or is silent.
    """
    mine = secrets.token_bytes(_NONCE)
    peer.sendall(mine)
    answer = receive_exactly(peer, _NONCE + _CODE)
    nonces = mine + answer[:_NONCE]
    if not hmac.compare_digest(answer[_NONCE:], _proof(secret, b"client", nonces)):
        raise NotAuthenticatedError("a client does not hold the secret")
    peer.sendall(_proof(secret, b"server", nonces))
    return Connection(peer, _proof(secret, b"messages", nonces), b"server", b"client")


def connect(peer: socket.socket, secret: bytes) -> Connection:
    """The client's end, once the server has proved itself; errors as of `accept`."""
    theirs = receive_exactly(peer, _NONCE)
    nonces = theirs + secrets.token_bytes(_NONCE)
    peer.sendall(nonces[_NONCE:] + _proof(secret, b"client", nonces))
    if not hmac.compare_digest(receive_exactly(peer, _CODE), _proof(secret, b"server", nonces)):
        raise NotAuthenticatedError("a server does not hold the secret")
    return Connection(peer, _proof(secret, b"messages", nonces), b"client", b"server")


def receive_exactly(peer: socket.socket, count: int) -> bytes:
    """The next `count` bytes.

    Raises:
        ConnectionError: the other end has gone before.
    """
    parts = bytearray()
    while len(parts) < count:
        part = peer.recv(min(count - len(parts), 1 << 16))
        if not part:
            raise ConnectionError("the other end has closed the connection")
        parts += part
    return bytes(parts)


def _proof(secret: bytes, role: bytes, nonces: bytes) -> bytes:
    return hmac.digest(secret, role + nonces, "sha256")
