"""The Random port on the kernel's generator."""

import os


class SystemRandom:
    """getrandom(2)."""

    def bytes(self, length: int) -> bytes:
        """Cryptographically strong random bytes.  Raises ValueError for a negative length."""
        return os.urandom(length)
