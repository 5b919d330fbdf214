from array import array

class PackedCore:
    _keys: list[bytearray]
    _values: list[array[int]]
    _half: int
    _wide: int
    _limit: int
    _count: int
    _last: int
    def add(self, identity: bytes, value: int, /) -> None: ...
    def candidates(self, identity: bytes, /) -> tuple[int, ...]: ...
    def arrange(self, keys: bytes, values: bytes, /) -> tuple[bytes, bytes]: ...
    def gather(
        self, first: int, stride: int, low: int, high: int, cursor: int, /
    ) -> tuple[bytes, bytes]: ...
