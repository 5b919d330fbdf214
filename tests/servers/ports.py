"""Ports that nobody listens at: for programs that have to be told one."""

import contextlib
import socket


def free_ports(count: int) -> list[int]:
    """Different ones; a moment later, another program may have them."""
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in held:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in held]
