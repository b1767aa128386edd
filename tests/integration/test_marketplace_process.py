"""The marketplace as a process: how it starts, refuses, stops, and what a kill leaves behind."""

import asyncio
import ipaddress
import json
import os
import resource
import signal
import ssl
import sys
import time
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.fakes.clock import Clock
from tests.fakes.marketplace import Marketplace, bearer
from tests.fakes.packages import make_package

SERVE = ["-m", "wirthforge_marketplace", "serve"]
BOUND_S = 30

MORTAL = """
import os, signal, sys
from wirthforge_marketplace.api.app import create_app
from wirthforge_marketplace.blobs import Blobs
from wirthforge_marketplace.settings import Settings
from wirthforge_marketplace.wiring import build_wiring
from wirthforge_sdk.serving.process import Program

class Mortal(Blobs):
    async def keep(self, upload):
        await super().keep(upload)
        os.kill(os.getpid(), signal.SIGKILL)

def build(settings):
    return build_wiring(settings, blobs=Mortal(settings.data_dir / "packages"))

sys.exit(Program("marketplace", Settings, build, create_app).main(["serve", "--migrate"]))
"""
"""The server, killed after the package is on disk and before its release is committed."""


@asynccontextmanager
async def process(data_dir, *arguments, **settings):
    """A Python process with the server's settings; killed when the block ends, if it is still there."""
    environment = {
        "PATH": os.defpath,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "WIRTHFORGE_MARKETPLACE_DATA_DIR": str(data_dir),
        "WIRTHFORGE_MARKETPLACE_LISTEN": "127.0.0.1:0",
        **{f"WIRTHFORGE_MARKETPLACE_{name.upper()}": str(value) for name, value in settings.items()},
    }
    pipe = asyncio.subprocess.PIPE
    running = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, env=environment, cwd=data_dir, stdout=pipe, stderr=pipe
    )
    try:
        yield running
    finally:
        if running.returncode is None:
            running.kill()
            await running.wait()
        running._transport.close()


@asynccontextmanager
async def served(data_dir, *arguments, verify=True, **settings):
    """A server that has said it is ready, and a client of it."""
    async with process(data_dir, *(arguments or (*SERVE, "--migrate")), **settings) as running:
        line = await asyncio.wait_for(running.stdout.readline(), BOUND_S)
        assert line, (await running.stderr.read()).decode()
        ready = json.loads(line)
        assert (ready["event"], ready["service"]) == ("ready", "wirthforge-marketplace")
        async with httpx.AsyncClient(base_url=ready["address"], verify=verify, trust_env=False) as client:
            yield running, client


async def stopped(running, asked=signal.SIGTERM):
    """Stops the server; returns its exit code and how long that took."""
    before = time.monotonic()
    running.send_signal(asked)
    code = await asyncio.wait_for(running.wait(), BOUND_S)
    return code, time.monotonic() - before


@pytest.mark.requirement("MKT-15")
@pytest.mark.parametrize("asked", [signal.SIGTERM, signal.SIGINT])
async def test_a_server_serves_until_it_is_asked_to_stop_and_keeps_what_it_has(tmp_path, asked):
    async with served(tmp_path) as (running, client):
        demo = await Marketplace(None, client, Clock()).publisher()
        release = await demo.release("demo/hello")
        code, seconds = await stopped(running, asked)
        assert (code, seconds < 5) == (0, True)
        assert await running.stderr.read() == b""
    assert list(tmp_path.glob("*.sqlite3-wal")) == []
    async with served(tmp_path, *SERVE) as (_, client):
        assert (await client.get("/v1/plugins/demo/hello/1.0.0")).json() == release
        keeper = bearer((tmp_path / "keeper.token").read_text().strip())
        assert (await client.get("/v1/accounts/me", headers=keeper)).json()["name"] == "keeper"


async def test_a_server_may_open_as_many_files_as_it_is_allowed(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(1024, hard - 1), hard))
    try:
        async with served(tmp_path) as (running, _):
            assert resource.prlimit(running.pid, resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_a_request_that_never_ends_does_not_hold_the_stop_up(tmp_path):
    async with served(tmp_path) as (running, client):
        demo = await Marketplace(None, client, Clock()).publisher()
        begun, never = asyncio.Event(), asyncio.Event()

        async def endless():
            yield b"x"
            begun.set()
            await never.wait()

        request = asyncio.create_task(
            client.post("/v1/releases", content=endless(), headers=demo.headers, timeout=BOUND_S)
        )
        await asyncio.wait_for(begun.wait(), BOUND_S)
        _, seconds = await stopped(running)
        assert seconds < 5
        request.cancel()
        await asyncio.gather(request, return_exceptions=True)
        assert list((tmp_path / "packages/incoming").iterdir()) == []


async def test_a_publish_killed_before_its_commit_leaves_the_old_state(tmp_path):
    package_of = {}
    async with served(tmp_path, "-c", MORTAL) as (running, client):
        demo = await Marketplace(None, client, Clock()).publisher()
        package_of["demo"] = make_package(key=demo.key)
        with pytest.raises(httpx.TransportError):
            await demo.publish(package_of["demo"])
        assert await asyncio.wait_for(running.wait(), BOUND_S) == -signal.SIGKILL
    (orphan,) = (tmp_path / "packages/sha256").glob("*/*")
    async with served(tmp_path, *SERVE) as (running, client):
        assert (await client.get("/v1/plugins")).json() == {"items": [], "next": None}
        assert (await client.get(f"/v1/packages/sha256:{orphan.name}")).status_code == 404
        assert (await stopped(running))[0] == 0
    long_ago = time.time() - 2 * 3600
    os.utime(orphan, (long_ago, long_ago))
    async with served(tmp_path, *SERVE) as (_, client):
        assert not orphan.exists()
        demo.client = client
        assert (await demo.publish(package_of["demo"])).status_code == 201
        assert orphan.exists()


async def refusal(data_dir, *arguments, **settings):
    async with process(data_dir, *(arguments or SERVE), **settings) as running:
        out, err = await asyncio.wait_for(running.communicate(), BOUND_S)
        assert out == b""
        assert b"Traceback" not in err
        return running.returncode, err.decode()


async def test_a_server_without_tables_refuses_and_says_what_to_run(tmp_path):
    code, told = await refusal(tmp_path)
    assert code == 2
    assert "serve --migrate" in told


async def test_a_server_refuses_to_listen_to_others_without_tls(tmp_path):
    code, told = await refusal(tmp_path, listen="0.0.0.0:0")
    assert code == 2
    assert "TLS_CERTIFICATE" in told


async def test_a_wrong_setting_is_told_without_its_value(tmp_path):
    code, told = await refusal(tmp_path, database_url="mysql://root:hunter2@db/market")
    assert code == 2
    assert "DATABASE_URL" in told
    assert "hunter2" not in told


async def test_migrations_that_are_not_there_are_told(tmp_path):
    script = (
        "import os, sys; os.environ['WIRTHFORGE_MIGRATIONS'] = '/nowhere';"
        "from wirthforge_marketplace.__main__ import main; sys.exit(main(['serve', '--migrate']))"
    )
    code, told = await refusal(tmp_path, "-c", script)
    assert code == 2
    assert "WIRTHFORGE_MIGRATIONS" in told


async def test_an_address_in_use_is_told(tmp_path):
    async with served(tmp_path) as (_, client):
        other = tmp_path / "other"
        other.mkdir()
        code, told = await refusal(other, *SERVE, "--migrate", listen=f"127.0.0.1:{client.base_url.port}")
        assert code != 0
        assert "in use" in told


async def test_a_server_with_a_certificate_speaks_tls(tmp_path):
    certificate, key = self_signed(tmp_path)
    verify = ssl.create_default_context(cafile=certificate)
    async with served(
        tmp_path, verify=verify, tls_certificate=certificate, tls_key=key, listen="127.0.0.1:0"
    ) as (_, client):
        assert client.base_url.scheme == "https"
        assert (await client.get("/healthz")).status_code == 200


def self_signed(directory):
    """The files of a certificate for 127.0.0.1 and of its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (directory / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (directory / "key.pem").write_bytes(key.private_bytes(pem, form, plain))
    return directory / "cert.pem", directory / "key.pem"
