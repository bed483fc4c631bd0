"""Certificates, keys and tokens: what is in the files that the settings name.

A file is read whenever it is needed: certificates for each new connection, tokens for each request. So what replaces
them is in use at once, without a restart, and there is nothing to watch. A file that cannot be used, one that is half
written for example, leaves in use what was read before, and the log says so. Contents are never logged.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from .config import Settings, SettingsError, endpoint_url, is_loopback

logger = logging.getLogger(__name__)

Value = TypeVar("Value")
Tokens = tuple[bytes, ...]


class Fresh(Generic[Value]):
    """What ``read`` gives now, or, while it raises a SettingsError, what it gave before; ``name`` is for the log.

    It gives the same object for as long as nothing changes. Threads may share it: at worst, two of them log the same.

    Raises:
        SettingsError: ``read`` raises it the first time.
    """

    def __init__(self, name: str, read: Callable[[Value | None], Value]) -> None:
        self._name = name
        self._read = read
        self._value = read(None)
        self._problem = ""

    def get(self) -> Value:
        try:
            value = self._read(self._value)
        except SettingsError as error:
            if str(error) != self._problem:
                about = {"event": "credentials_unusable", "reason": str(error)}
                logger.error("%s; what was there before stays in use", error, extra=about)
            self._problem = str(error)
            return self._value
        if value != self._value:
            about = {"event": "credentials_replaced", "credentials": self._name}
            logger.info("new %s are in use", self._name, extra=about)
            self._value = value
        elif self._problem:
            about = {"event": "credentials_usable", "credentials": self._name}
            logger.info("%s can be read again, and are what they were", self._name, extra=about)
        self._problem = ""
        return self._value


@dataclass(frozen=True, slots=True, repr=False)
class Pem:
    """What an end of a TLS connection shows of itself, and which authorities it trusts at the other; empty: nothing."""

    certificate: bytes = b""
    key: bytes = b""
    authorities: bytes = b""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What one end of the sidecar needs. Without ``tls`` it is in clear, without ``tokens`` it knows none."""

    tls: Fresh[Pem] | None = None
    tokens: Fresh[Tokens] | None = None


def of_listen(settings: Settings) -> Credentials:
    """What the receiver shows, and asks its clients for.

    Raises:
        SettingsError: a file cannot be used; the message names its setting and its path, never its contents.
    """
    files = _TlsFiles(
        certificate=_File("listen_certificate_file", settings.listen_certificate_file),
        key=_File("listen_key_file", settings.listen_key_file),
        authorities=_File("listen_client_ca_file", settings.listen_client_ca_file),
    )
    tls = Fresh("certificates of listen", files.read) if settings.listen_certificate_file else None
    return Credentials(tls, _tokens("tokens of listen", _File("listen_token_file", settings.listen_token_file)))


def of_endpoint(settings: Settings) -> Credentials:
    """What the sender shows, and expects of the endpoint.

    Raises:
        SettingsError: as `of_listen`.
    """
    files = _TlsFiles(
        certificate=_File("endpoint_certificate_file", settings.endpoint_certificate_file),
        key=_File("endpoint_key_file", settings.endpoint_key_file),
        authorities=_File("endpoint_ca_file", settings.endpoint_ca_file),
    )
    secure = endpoint_url(settings.endpoint).scheme == "https"
    tls = Fresh("certificates of endpoint", files.read) if secure else None
    return Credentials(tls, _tokens("tokens of endpoint", _File("endpoint_token_file", settings.endpoint_token_file)))


def warnings(settings: Settings) -> list[str]:
    """What leaves an end open. No errors: inside a pod's or a compose file's own network, it is what people do."""
    found = []
    tls, tokens = bool(settings.listen_certificate_file), bool(settings.listen_token_file)
    known = tokens or bool(settings.listen_client_ca_file)
    if not is_loopback(settings.listen.rpartition(":")[0]):
        if not known:
            missing = "listen_token_file or listen_client_ca_file" if tls else "listen_certificate_file"
            found.append(f"whoever reaches {settings.listen} can write into traces; see {missing}")
        elif not tls:
            found.append(f"the network can read the tokens that come to {settings.listen}; see listen_certificate_file")
    if settings.endpoint_token_in_clear and endpoint_url(settings.endpoint).scheme == "http":
        found.append(f"the network can read the token that goes to {settings.endpoint}: endpoint_token_in_clear")
    return found


@dataclass(frozen=True, slots=True)
class _File:
    """A setting that names a file; with an empty path there is none."""

    setting: str
    path: str

    def __str__(self) -> str:
        return f"{self.setting} ({self.path})"

    def read(self) -> bytes:
        try:
            return Path(self.path).read_bytes() if self.path else b""
        except OSError as error:
            raise SettingsError(f"{self} cannot be read: {error.strerror}") from None


@dataclass(frozen=True, slots=True)
class _TlsFiles:
    certificate: _File
    key: _File
    authorities: _File

    def read(self, before: Pem | None) -> Pem:
        """The files; what differs from ``before`` is checked."""
        pem = self._contents()
        if pem != before:
            self._check()
            if pem != self._contents():  # what was checked may be something else
                raise SettingsError(f"{self.certificate} is just being replaced")
        return pem

    def _contents(self) -> Pem:
        return Pem(self.certificate.read(), self.key.read(), self.authorities.read())

    def _check(self) -> None:
        """gRPC would say of a bad file only that a handshake failed, and only when somebody connects."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if self.certificate.path:
            try:
                context.load_cert_chain(self.certificate.path, self.key.path, password="")  # else it asks the terminal
            except OSError:  # of SSL, too
                what = "are not a certificate and its key, in PEM and without a password"
                raise SettingsError(f"{self.certificate} and {self.key} {what}") from None
        if self.authorities.path:
            try:
                context.load_verify_locations(self.authorities.path)
            except OSError:
                raise SettingsError(f"{self.authorities} holds no certificate in PEM") from None


def _tokens(name: str, file: _File) -> Fresh[Tokens] | None:
    return Fresh(name, lambda _before: _parse_tokens(file)) if file.path else None


def _parse_tokens(file: _File) -> Tokens:
    """The first word of each line, as the Collector's bearertokenauth reads such files; what follows it is a remark."""
    tokens = tuple(line.split()[0] for line in file.read().splitlines() if line.strip())
    if not tokens:
        raise SettingsError(f"{file} holds no token")
    if not all(0x21 <= byte <= 0x7E for token in tokens for byte in token):  # what an HTTP header can carry
        raise SettingsError(f"{file} holds a token with characters that are not printable ASCII")
    return tokens
