"""TLS certificates for one Dask cluster: only holders of the key file can connect."""

from __future__ import annotations

import datetime
import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

_VALID_DAYS = 30


@dataclass(frozen=True)
class Credentials:
    """Three PEM files: the authority, and one certificate with its key for all members."""

    ca: Path
    certificate: Path
    key: Path

    def remove(self) -> None:
        """Delete the files; copies are useless once the cluster has ended."""
        for path in (self.ca, self.certificate, self.key):
            path.unlink(missing_ok=True)


def write_private(path: Path, content: bytes) -> None:
    """Publish `content` as `path`, never readable by others, not even briefly."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    os.replace(temporary, path)


def issue_credentials(directory: Path, name: str) -> Credentials:
    """New credentials, mode 0600, in `<directory>/{ca,certificate,key}-<name>.pem`.

    The authority signs one certificate and its key is then discarded: no other certificate that
    members would accept can be issued.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    credentials = Credentials(
        *(directory / f"{part}-{name}.pem" for part in ("ca", "certificate", "key"))
    )
    authority_key = ec.generate_private_key(ec.SECP256R1())
    member_key = ec.generate_private_key(ec.SECP256R1())
    authority = _certify("sarhpc authority", authority_key, None, authority_key)
    member = _certify("sarhpc member", member_key, authority, authority_key)
    pem = serialization.Encoding.PEM
    write_private(credentials.ca, authority.public_bytes(pem))
    write_private(credentials.certificate, member.public_bytes(pem))
    write_private(
        credentials.key,
        member_key.private_bytes(
            pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
    )
    return credentials


def _certify(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Certificate | None,
    issuer_key: ec.EllipticCurvePrivateKey,
) -> x509.Certificate:
    """A certificate for `key`, signed by `issuer`; self-signed, of an authority, without one."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.x509.oid import NameOID

    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        # Clocks of nodes differ, and one set back must not end the connections of a job.
        .not_valid_before(now - datetime.timedelta(days=_VALID_DAYS))
        .not_valid_after(now + datetime.timedelta(days=_VALID_DAYS))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(_key_usage(sign_certificates=issuer is None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()),
            critical=False,
        )
    )
    if issuer is not None:
        loopback = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
        builder = builder.add_extension(x509.SubjectAlternativeName([loopback]), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


def _key_usage(sign_certificates: bool) -> x509.KeyUsage:
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=not sign_certificates,
        key_cert_sign=sign_certificates,
        crl_sign=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
