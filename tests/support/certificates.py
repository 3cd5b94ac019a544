"""Certificates for tests, made by openssl: good for two days, and signed by themselves."""

import ssl
import subprocess
from pathlib import Path

from tests.support import needs


def certificate(directory: Path, *, host: str) -> Path:
    """Make a certificate for a name; its key is in the same file."""
    path = directory / f"{host}.pem"
    openssl = needs.program("openssl")
    made = subprocess.run(
        [
            *(openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "2", "-subj", f"/CN={host}"),
            *("-addext", f"subjectAltName=DNS:{host}", "-keyout", "-", "-out", "-"),
        ],
        capture_output=True,
        check=True,
    )
    path.write_bytes(made.stdout)
    return path


def server_context(certificate_file: Path) -> ssl.SSLContext:
    """Return the TLS context with which a server shows its certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate_file)
    # A session that is resumed shows no certificate.
    context.num_tickets = 0
    context.options |= ssl.OP_NO_TICKET
    return context
