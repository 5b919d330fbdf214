"""Whose certificates the copies of an engine take, and when there are to be others.

An engine has one authority (`NAME-ca`), made once, and each replicated shard one certificate with
the stable names of its copies (`NAME-shard-N-tls`), renewed long before it ends.  The engine reads
its files again when they change, so nothing here restarts a pod.  The authority changes with an
overlap, so that at any time what a copy shows is what the others trust:

    announce   the next authority is trusted by all, and signs nothing
    promote    it signs; the one before is trusted still
    retire     the one before is trusted no more

Each step waits until every certificate of the engine says that the step before has arrived, and
then for `SPREAD_S`: a kubelet takes its time to bring a changed Secret into a pod.
"""

import enum
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
from cryptography import x509

from ultraengine_operator import names

DAY_S: Final = 86_400.0
AUTHORITY_S: Final = 1_826 * DAY_S
"""Five years."""
AUTHORITY_RENEW_S: Final = 365 * DAY_S
"""The next authority is announced so long before the end of the one that signs."""
LEAF_S: Final = 90 * DAY_S
LEAF_RENEW_S: Final = 45 * DAY_S
"""An operator may be away for so long before copies refuse each other."""
SKEW_S: Final = 3_600.0
"""Certificates begin so long before they are made: clocks of nodes differ."""
SPREAD_S: Final = 3_600.0
CERTIFICATE: Final = "tls.crt"
KEY: Final = "tls.key"
TRUSTED: Final = "ca.crt"
NEXT_CERTIFICATE: Final = "next.crt"
NEXT_KEY: Final = "next.key"


class Certificate(msgspec.Struct, frozen=True):
    """What counts of one."""

    key_id: str
    issuer_id: str
    names: tuple[str, ...]
    since_s: float
    until_s: float

    @property
    def made_s(self) -> float:
        """When it was made."""
        return self.since_s + SKEW_S


class SeenAuthority(msgspec.Struct, frozen=True):
    """The Secret of an engine's authority, without its keys."""

    version: str
    signer: Certificate
    following: Certificate | None
    """The one that is announced."""
    trusted: tuple[str, ...]
    asked: str = ""
    """The wish for another one that was met last."""


class SeenLeaf(msgspec.Struct, frozen=True):
    """The Secret with the certificate of a shard's copies, without its key."""

    name: str
    version: str
    certificate: Certificate
    trusted: tuple[str, ...]


class Step(enum.Enum):
    """One step of an authority's change."""

    ANNOUNCE = "announce the next authority of"
    PROMOTE = "sign by the next authority of"
    RETIRE = "trust only the newest authority of"


def next_step(
    authority: SeenAuthority, leaves: Sequence[SeenLeaf], *, asked: str, now_s: float
) -> Step | None:
    """What is to be done with an authority; `asked`: the wish of now, a new text is a new wish."""
    signer, following = authority.signer, authority.following
    spread = all(
        leaf.trusted == authority.trusted
        and leaf.certificate.issuer_id == signer.key_id
        and now_s - leaf.certificate.made_s >= SPREAD_S
        for leaf in leaves
    )
    if following is not None:
        return Step.PROMOTE if spread and now_s - following.made_s >= SPREAD_S else None
    if authority.trusted != (signer.key_id,):
        return Step.RETIRE if spread else None
    if signer.until_s - now_s < AUTHORITY_RENEW_S or asked != authority.asked:
        return Step.ANNOUNCE
    return None


def is_due(
    leaf: SeenLeaf | None, authority: SeenAuthority, hosts: Sequence[str], now_s: float
) -> bool:
    """Whether the copies with these names are to get another certificate."""
    return leaf is None or (
        leaf.certificate.until_s - now_s < LEAF_RENEW_S
        or leaf.certificate.issuer_id != authority.signer.key_id
        or leaf.certificate.names != tuple(sorted(hosts))
        or leaf.trusted != authority.trusted
    )


def read_certificates(pem: bytes) -> tuple[Certificate, ...]:
    """All of a file.  Raises ValueError."""
    return tuple(_certificate(one) for one in x509.load_pem_x509_certificates(pem))


def _certificate(one: x509.Certificate) -> Certificate:
    try:
        extensions = one.extensions
        own = extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        issuer = extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    except x509.ExtensionNotFound as error:
        raise ValueError(f"it is not one of ours: {error}") from error
    hosts: tuple[str, ...] = ()
    try:
        told = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        hosts = tuple(sorted(told.get_values_for_type(x509.DNSName)))
    except x509.ExtensionNotFound:
        pass  # An authority's.
    return Certificate(
        own.digest.hex(),
        (issuer.key_identifier or b"").hex(),
        hosts,
        one.not_valid_before_utc.timestamp(),
        one.not_valid_after_utc.timestamp(),
    )


def read_authority(
    data: Mapping[str, bytes], annotations: Mapping[str, str], version: str
) -> SeenAuthority | None:
    """What an authority's Secret says; None when it is not what the operator has written."""
    try:
        (signer,) = read_certificates(data[CERTIFICATE])
        following = None
        if NEXT_CERTIFICATE in data:
            (following,) = read_certificates(data[NEXT_CERTIFICATE])
        trusted = tuple(sorted(one.key_id for one in read_certificates(data[TRUSTED])))
    except (ValueError, KeyError):
        return None
    asked = annotations.get(names.ROTATE, "")
    return SeenAuthority(version, signer, following, trusted, asked)


def read_leaf(name: str, data: Mapping[str, bytes], version: str) -> SeenLeaf | None:
    """What the Secret of a shard's copies says; None when it is not what the operator has
    written."""
    try:
        (certificate,) = read_certificates(data[CERTIFICATE])
        trusted = tuple(sorted(one.key_id for one in read_certificates(data[TRUSTED])))
    except (ValueError, KeyError):
        return None
    return SeenLeaf(name, version, certificate, trusted)
