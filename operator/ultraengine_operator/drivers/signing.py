"""Keys and certificates of the copies of shards: made here, written once, never kept.

A Secret is created, or replaced as exactly the one that was seen; who comes second looks again.
Private keys are in memory for as long as one request takes.
"""

import base64
import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ultraengine_operator import names
from ultraengine_operator.actions import IssueCertificate, MakeAuthority, TurnAuthority
from ultraengine_operator.authority import (
    AUTHORITY_S,
    CERTIFICATE,
    KEY,
    LEAF_S,
    NEXT_CERTIFICATE,
    NEXT_KEY,
    SKEW_S,
    TRUSTED,
    Step,
)
from ultraengine_operator.cluster import KINDS, Cluster, Content, Refused

PEM: Final = serialization.Encoding.PEM
Key = ec.EllipticCurvePrivateKey
Files = dict[str, bytes]
Signing = MakeAuthority | TurnAuthority | IssueCertificate


def _key_pem(key: Key) -> bytes:
    return key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def _common(name: str) -> x509.Name:
    # 64 characters are all that a common name may have; nobody goes by it.
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: Key, issuer_key: Key, since_s: float, until_s: float
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(dt.datetime.fromtimestamp(since_s, dt.UTC))
        .not_valid_after(dt.datetime.fromtimestamp(until_s, dt.UTC))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()),
            critical=False,
        )
    )


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority, key_cert_sign=authority, crl_sign=authority,
        content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip


def new_authority(name: str, now_s: float) -> tuple[bytes, bytes]:
    """Certificate and key of an authority that signs for itself."""
    key, subject = ec.generate_private_key(ec.SECP256R1()), _common(name)
    signed = (
        _builder(subject, subject, key, key, now_s - SKEW_S, now_s + AUTHORITY_S)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(authority=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    return signed.public_bytes(PEM), _key_pem(key)


def first_files(name: str, now_s: float) -> Files:
    """The content of a new authority's Secret."""
    certificate, key = new_authority(name, now_s)
    return {CERTIFICATE: certificate, KEY: key, TRUSTED: certificate}


def turned_files(held: Mapping[str, bytes], step: Step, name: str, now_s: float) -> Files:
    """The content of an authority's Secret after a step.  Raises KeyError."""
    files = dict(held)
    match step:
        case Step.ANNOUNCE:
            files[NEXT_CERTIFICATE], files[NEXT_KEY] = new_authority(name, now_s)
            files[TRUSTED] = held[CERTIFICATE] + files[NEXT_CERTIFICATE]
        case Step.PROMOTE:
            files[CERTIFICATE], files[KEY] = files.pop(NEXT_CERTIFICATE), files.pop(NEXT_KEY)
        case Step.RETIRE:
            files[TRUSTED] = held[CERTIFICATE]
    return files


def issued_files(authority: Mapping[str, bytes], hosts: Sequence[str], now_s: float) -> Files:
    """The content of the Secret of a shard's copies.  Raises KeyError, ValueError."""
    signer = x509.load_pem_x509_certificate(authority[CERTIFICATE])
    signer_key = serialization.load_pem_private_key(authority[KEY], None)
    if not isinstance(signer_key, ec.EllipticCurvePrivateKey):
        raise ValueError("the key of the authority is not one that the operator makes")  # noqa: TRY004
    key = ec.generate_private_key(ec.SECP256R1())
    until_s = min(now_s + LEAF_S, signer.not_valid_after_utc.timestamp())
    uses = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    subject = _common(hosts[0])
    signed = (
        _builder(subject, signer.subject, key, signer_key, now_s - SKEW_S, until_s)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName(host) for host in hosts]), critical=False
        )
        .sign(signer_key, hashes.SHA256())
    )
    return {
        CERTIFICATE: signed.public_bytes(PEM),
        KEY: _key_pem(key),
        TRUSTED: authority[TRUSTED],
    }


def _encoded(files: Mapping[str, bytes]) -> dict[str, str]:
    return {name: base64.b64encode(content).decode() for name, content in sorted(files.items())}


class Signer:
    """Carries out what a plan says of certificates."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    async def do(self, namespace: str, action: Signing, now_s: float) -> Content | None:
        """The Secret as it is now; None when there is none.  Raises `Refused`."""
        match action:
            case MakeAuthority(manifest):
                name = manifest["metadata"]["name"]
                return await self._write(namespace, manifest, first_files(name, now_s), None)
            case TurnAuthority(name, version, step, asked):
                held = await self._held(namespace, name)
                if held is None:
                    return None
                files = turned_files(_files(held), step, name, now_s)
                if step is Step.ANNOUNCE:
                    held["metadata"].setdefault("annotations", {})[names.ROTATE] = asked
                return await self._write(namespace, held, files, version)
            case IssueCertificate(manifest, authority, hosts, version):
                held = await self._held(namespace, authority)
                if held is None:
                    return None
                files = issued_files(_files(held), hosts, now_s)
                return await self._write(namespace, manifest, files, version)

    async def _held(self, namespace: str, name: str) -> Content | None:
        return await self._cluster.get(KINDS["Secret"], namespace, name)

    async def _write(
        self, namespace: str, manifest: Content, files: Files, version: str | None
    ) -> Content | None:
        kind, metadata = KINDS["Secret"], manifest["metadata"]
        content = {**manifest, "data": _encoded(files)}
        try:
            if version is None:
                return await self._cluster.create(kind, content)
            replaced = {**content, "metadata": {**metadata, "resourceVersion": version}}
            return await self._cluster.replace(kind, replaced)
        except Refused as refused:
            if refused.status != 409:
                raise
            # Somebody has written it meanwhile: the next plan goes by what is there now.
            return await self._held(namespace, metadata["name"])


def _files(secret: Content) -> Files:
    return {name: base64.b64decode(text) for name, text in secret["data"].items()}
