"""What the kernel is told of connections whose other end may vanish."""

import socket

from ultraengine.silence.driver import SILENT_S, notice_silence


def test_a_machine_that_vanishes_is_noticed_by_the_kernel() -> None:
    with socket.socket() as connection:
        notice_silence(connection)
        read = connection.getsockopt
        assert read(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == SILENT_S * 1_000
        assert read(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        tries = read(socket.IPPROTO_TCP, socket.TCP_KEEPCNT)
        between = read(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL)
        assert read(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) + tries * between == SILENT_S
    with socket.socket(socket.AF_UNIX) as connection:
        notice_silence(connection)  # It has none of these.
        assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0
