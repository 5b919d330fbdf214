"""A key file with one key more or less says what was meant, and else what it said before."""

from datetime import UTC, datetime

import pytest
from tests.unit.gateway.conftest import CountingRandom, StillClock

from ultraengine.edge.auth import ApiKeys, KeyFileError, KeyTable, read_keys
from ultraengine.gateway.key_edits import with_new_key, without_key
from ultraengine.model.errors import EngineError

RANDOM = CountingRandom()
WRITTEN = b"""# Keys of the shop.
[[keys]]
prefix = "aaaaaaaa"
sha256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
tenant = "acme"
principal = "till-1"
scopes = [
  "ledger:read",
]

# The back office.
[[ keys ]]  # asked for by Ann
prefix = 'bbbbbbbb'
sha256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
tenant = "acme"
principal = "office"
scopes = ["*:read"]

# Agreed in May.
[tenants.acme]
commands_per_s = 5000
burst = 10000"""


def issued(content: bytes, principal: str = "till-7", tenant: str = "acme") -> tuple[str, bytes]:
    key, _, edited = with_new_key(
        content, RANDOM, tenant=tenant, principal=principal, scopes=["ledger:write"]
    )
    return key, edited


def authenticates(content: bytes, key: str) -> bool:
    identity = ApiKeys(KeyTable.parse(content), StillClock())
    try:
        identity.authenticate({"authorization": f"Bearer {key}"}, peer_is_loopback=False)
    except EngineError:
        return False
    return True


@pytest.mark.parametrize("content", [b"", WRITTEN, WRITTEN + b"\n"])
def test_an_issued_key_opens_what_it_was_issued_for_until_it_is_revoked(content: bytes) -> None:
    key, edited = issued(content)
    assert edited.startswith(content)
    assert authenticates(edited, key)
    entry, without = without_key(edited, read_keys(edited).keys[-1].prefix)
    assert (entry.principal, entry.scopes) == ("till-7", ["ledger:write"])
    assert not authenticates(without, key)
    assert read_keys(without) == read_keys(content)


def test_revoking_takes_one_entry_and_leaves_the_comments_of_what_follows() -> None:
    _, first_gone = without_key(WRITTEN, "aaaaaaaa")
    start, end = WRITTEN.index(b"[[keys]]"), WRITTEN.index(b"\n# The back office.")
    assert first_gone == WRITTEN[:start] + WRITTEN[end:]
    entry, second_gone = without_key(WRITTEN, "bbbbbbbb")
    start, end = WRITTEN.index(b"[[ keys ]]"), WRITTEN.index(b"\n# Agreed in May.")
    assert entry.principal == "office"
    assert second_gone == WRITTEN[:start] + WRITTEN[end:]


def test_a_fraction_of_a_second_is_cut_off_an_expiry() -> None:
    when = datetime(2027, 1, 1, 0, 0, 0, 999_999, tzinfo=UTC)
    _, entry, edited = with_new_key(
        WRITTEN, RANDOM, tenant="acme", principal="p", scopes=["admin"], expires=when
    )
    assert entry.expires == datetime(2027, 1, 1, tzinfo=UTC)
    assert read_keys(edited).keys[-1] == entry


def test_a_third_key_of_a_principal_is_refused() -> None:
    _, one = issued(b"")
    _, two = issued(one)
    with pytest.raises(KeyFileError, match="acme/till-7 has more than 2 keys"):
        issued(two)
    issued(two, principal="till-8")


@pytest.mark.parametrize("name", ['a"\nscopes = ["admin"]', "", "a b", "system"])
def test_a_tenant_that_is_no_name_is_refused_before_it_reaches_the_text(name: str) -> None:
    with pytest.raises(KeyFileError, match="is not a name for a tenant"):
        issued(WRITTEN, tenant=name)


def test_a_prefix_that_is_taken_is_not_used_again() -> None:
    class Twice:
        """The same five bytes for the first two prefixes."""

        def __init__(self) -> None:
            self.asked: list[int] = []

        def bytes(self, count: int) -> bytes:
            self.asked.append(count)
            short = self.asked.count(5)
            return bytes([0 if count == 5 and short < 3 else len(self.asked)] * count)

    random = Twice()
    _, first, content = with_new_key(b"", random, tenant="a", principal="p", scopes=["admin"])
    _, second, content = with_new_key(content, random, tenant="a", principal="p", scopes=["admin"])
    assert random.asked.count(5) == 3
    assert [entry.prefix for entry in read_keys(content).keys] == [first.prefix, second.prefix]


def test_an_unknown_key_cannot_be_revoked() -> None:
    with pytest.raises(KeyFileError, match="no key cccccccc"):
        without_key(WRITTEN, "cccccccc")


INLINE = (
    b'keys = [{prefix = "aaaaaaaa", tenant = "acme", principal = "p", scopes = ["admin"], '
    b'sha256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"}]\n'
)


def test_a_file_whose_text_cannot_be_edited_is_left_to_its_author() -> None:
    with pytest.raises(KeyFileError, match="edit it by hand"):
        issued(INLINE)
    with pytest.raises(KeyFileError, match="edit it by hand"):
        without_key(INLINE, "aaaaaaaa")
