"""Where a MariaDB or MySQL is, from a URL.

    mysql://user:password@host:3306/database
    mysql://user@/database?socket=/run/mysqld/mysqld.sock
    mysql://user:password@host/database?tls=verify&ca=/etc/ssl/our-ca.pem

``mariadb://`` is the same.  Parts are percent-decoded.  Pure.
"""

from typing import Final
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec

from ultraengine.model.errors import InvariantBroken

PORT: Final = 3306
TLS: Final = ("off", "required", "verify")
"""``required`` encrypts and believes any certificate; ``verify`` wants one for this host."""
_OPTIONS: Final = {"socket", "tls", "ca", "bulk"}


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """One database on one server."""

    host: str
    port: int
    socket: str | None
    """Path of a Unix socket, instead of host and port."""
    user: str
    password: str
    database: str
    tls: str = "off"
    ca: str | None = None
    """File with the certificates to believe; None = those of the machine."""
    bulk: bool = True
    """Whether MariaDB's bulk command may be used; a proxy in between may not know it."""

    def __repr__(self) -> str:
        place = self.socket or f"{self.host}:{self.port}"
        return f"mysql://{self.user}@{place}/{self.database}"


def parse(url: str) -> Address:
    """Raises `InvariantBroken` with what is wrong; never with the password."""
    parts = urlsplit(url)
    if parts.scheme not in {"mysql", "mariadb"}:
        raise InvariantBroken("a MySQL target begins with mysql:// or mariadb://")
    options = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    unknown = options.keys() - _OPTIONS
    if unknown:
        raise InvariantBroken(f"a MySQL target has no option {', '.join(sorted(unknown))}")
    database = unquote(parts.path.removeprefix("/"))
    if not database or "/" in database:
        raise InvariantBroken("a MySQL target names its database: mysql://user@host/database")
    tls = options.get("tls", "off")
    if tls not in TLS:
        raise InvariantBroken(f"tls is one of {', '.join(TLS)}")
    try:
        port = parts.port or PORT
    except ValueError:
        raise InvariantBroken("the port of a MySQL target is a number below 65,536") from None
    return Address(
        host=parts.hostname or "localhost",
        port=port,
        socket=options.get("socket"),
        user=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
        database=database,
        tls=tls,
        ca=options.get("ca"),
        bulk=options.get("bulk", "1") != "0",
    )
