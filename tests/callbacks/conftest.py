"""A certificate that nobody vouches for."""

import shutil
import ssl
import subprocess
from pathlib import Path

import pytest

OPENSSL = shutil.which("openssl")


@pytest.fixture
def certificate(tmp_path: Path) -> ssl.SSLContext:
    """A server's context, with a certificate for localhost that it signed itself."""
    if OPENSSL is None:
        pytest.skip("there is no openssl on this machine")
    key, signed = tmp_path / "key.pem", tmp_path / "signed.pem"
    subprocess.run(
        [
            *(OPENSSL, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "2", "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", signed),
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(signed, key)
    return context
