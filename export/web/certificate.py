"""A certificate for this computer's address, made once and kept; needs the extra `serve`."""

import time
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from ofa.core.errors import DeviceError
from ofa.core.files import cache_folder, replacing, write_private

_DAYS, _RENEWED_AFTER_DAYS = 365, 300


def certificate(address: str) -> tuple[Path, Path]:
    """Return a certificate for an IP address, signed by itself, and its key, which only this user can read.

    The same is returned for 300 days, so that a browser has to be told only once that it is trusted.

    Raises:
        DeviceError: the package `cryptography` is not installed.
    """
    folder = cache_folder() / "certificates"
    cert, key = folder / f"{address}.pem", folder / f"{address}.key"
    is_new = cert.is_file() and time.time() - cert.stat().st_mtime < _RENEWED_AFTER_DAYS * 24 * 3600
    if not (is_new and key.is_file()):
        folder.mkdir(parents=True, exist_ok=True)
        _make(address, cert, key)
    return cert, key


def _make(address: str, cert: Path, key: Path) -> None:
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
    except ImportError as error:
        advice = "run in the checkout: pip install -e '.[serve]', or give --cert and --key"
        raise DeviceError(f"a certificate needs the package cryptography; {advice}") from error
    private, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "ofa serve")])
    numbers = [x509.IPAddress(ip_address(number)) for number in dict.fromkeys((address, "127.0.0.1"))]
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=_DAYS))
        .add_extension(x509.SubjectAlternativeName([*numbers, x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(private, hashes.SHA256())
    )
    encoded = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    write_private(key, encoded)
    with replacing(cert) as temporary:
        temporary.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
