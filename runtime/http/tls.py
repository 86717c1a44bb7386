"""The certificate of a listener: read from files, and read again when they change.

A listener keeps one context for its life. Each handshake is given the context that was read last, so a new
certificate is whole or not in use at all: a key that does not fit, or a file half written, leaves the one before.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from pathlib import Path
from typing import Final

from upwell.functions.errors import InvalidSettings

_log = logging.getLogger("upwell.http")

LOOK_SECONDS: Final = 1.0
"""Between two looks at the files' times; a renewed certificate is in use no later."""
_PROTOCOLS: Final = ["http/1.1"]

_Seen = tuple[tuple[int, int, int], ...]


class Certificate:
    """A certificate chain and its key in PEM; one file may hold both. A listener is started with `context`.

    Raises InvalidSettings, which names `flag`, when they cannot be read or do not fit each other.
    """

    def __init__(self, certificate: Path, key: Path | None = None, *, flag: str = "--tls-certificate") -> None:
        self._files = (certificate, key or certificate)
        self._flag = flag
        self._seen = self._look()
        self._current = self._read()
        self.context = self._read()
        self.context.sni_callback = self._choose

    def __repr__(self) -> str:
        return f"<Certificate {self._files[0]}>"

    def reload(self) -> bool:
        """Read the files again if they changed since; whether there is another certificate now.

        One that cannot be read is logged, and the one before stays until the files change again.
        """
        seen = self._look()
        if seen == self._seen:
            return False
        self._seen = seen
        try:
            self._current = self._read()
        except InvalidSettings as error:
            _log.warning("the certificate stays, since the new one cannot be used", extra={"error": str(error)})
            return False
        _log.info("another certificate is in use", extra={"file": str(self._files[0])})
        return True

    async def run(self) -> None:
        """Look for changes until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self.reload()

    def _choose(self, connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        connection.context = self._current

    def _look(self) -> _Seen:
        """What changes with the files; empty when one is not there."""
        try:
            found = [path.stat() for path in self._files]
        except OSError:
            return ()
        return tuple((status.st_mtime_ns, status.st_size, status.st_ino) for status in found)

    def _read(self) -> ssl.SSLContext:
        certificate, key = self._files
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.set_alpn_protocols(_PROTOCOLS)
        try:
            context.load_cert_chain(certificate, key, password=_no_password)
        except (OSError, ValueError) as error:
            absent = [str(path) for path in self._files if not path.exists()]
            why = f"there is no file {absent[0]}" if absent else str(error)
            hint = "Give a certificate chain in PEM and its unencrypted key."
            where = f"{self._flag} {certificate}"
            raise InvalidSettings(f"no usable certificate: {why}", where=where, hint=hint) from error
        return context


def _no_password() -> str:
    """Nobody is there to be asked for one."""
    raise ValueError("the key is encrypted")
