"""Have the kernel notice that the other end of a TCP connection has vanished.

For whoever dials: without it, a machine that is gone is waited for until the limits of the system,
which are many minutes.
"""

import socket
from typing import Final

SILENT_S: Final = 10.0
"""A TCP connection whose other end confirms nothing for so long is lost: a machine that vanishes
sends no word of it."""


def notice_silence(connection: socket.socket) -> None:
    """Have the kernel break a TCP connection after `SILENT_S` without a sign of its other end,
    whether something is under way to it or its answer is waited for."""
    if connection.family == socket.AF_UNIX:
        return
    second, tries = 1, int(SILENT_S) // 2
    for level, name, value in (
        (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(SILENT_S * 1_000)),
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, int(SILENT_S) - tries * second),
        (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, second),
        (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, tries),
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    ):
        connection.setsockopt(level, name, value)
