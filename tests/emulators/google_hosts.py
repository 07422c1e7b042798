"""Google's hosts under their own names, over TLS, for clients whose addresses cannot be set, such as TensorFlow's.

A proxy that takes CONNECT for any host, ends TLS with a certificate of its own and passes on to one emulator. A client
comes here by `https_proxy` and trusts it by `CURL_CA_BUNDLE`: see `environment`.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import TracebackType
from urllib.parse import urlsplit

HOSTS = ("storage.googleapis.com", "www.googleapis.com")


class GoogleHosts:
    """The proxy, as a context manager; its certificate lies in `folder`."""

    def __init__(self, url: str, folder: Path) -> None:
        """Pass on to the emulator at `url`."""
        self._upstream = ("127.0.0.1", urlsplit(url).port)
        self._certificate = folder / "google.pem"
        write_certificate(self._certificate)
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(self._certificate)
        self._listener = socket.create_server(("127.0.0.1", 0))

    @property
    def environment(self) -> Mapping[str, str]:
        """Variables for a process that is to speak to the emulator as to Google, with a token."""
        return {
            "https_proxy": f"http://127.0.0.1:{self._listener.getsockname()[1]}",
            "no_proxy": "127.0.0.1,localhost",
            "CURL_CA_BUNDLE": str(self._certificate),
            "GOOGLE_AUTH_TOKEN_FOR_TESTING": "token",
        }

    def __enter__(self) -> GoogleHosts:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                head += client.recv(4096)
            host = head.split()[1].decode().partition(":")[0]
            if not head.startswith(b"CONNECT ") or host not in HOSTS:
                client.sendall(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n")
                return
            client.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
            with (
                self._tls.wrap_socket(client, server_side=True) as inner,
                socket.create_connection(self._upstream) as upstream,
            ):
                answers = threading.Thread(target=_pass_on, args=(upstream, inner), daemon=True)
                answers.start()
                _pass_on(inner, upstream)
                answers.join(30)


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def write_certificate(file: Path) -> None:
    """Write a key and a certificate for Google's hosts that is signed with it."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "emulator")])
    now = datetime.now(timezone.utc)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host) for host in HOSTS]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
