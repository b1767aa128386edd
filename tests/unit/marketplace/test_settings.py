"""Settings: what is refused before anything listens."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from wirthforge_marketplace.settings import Settings


def test_the_defaults_listen_on_this_machine_and_keep_everything_in_one_directory():
    settings = Settings()
    assert (settings.address, settings.port) == ("127.0.0.1", 7420)
    assert settings.database.startswith(f"sqlite+aiosqlite:///{settings.data_dir.absolute()}/")


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "127.5.5.5:80", "[::1]:80", "localhost:80"])
def test_an_address_of_this_machine_needs_no_tls(listen):
    assert Settings(listen=listen).listen == listen


@pytest.mark.parametrize("listen", ["0.0.0.0:80", "[::]:80", "192.168.1.4:80", "market.example.org:80"])
def test_an_address_that_others_reach_needs_tls_or_a_flag(listen):
    with pytest.raises(ValidationError, match="TLS_CERTIFICATE and TLS_KEY"):
        Settings(listen=listen)
    assert Settings(listen=listen, insecure_listen=True)
    assert Settings(listen=listen, tls_certificate=Path("cert.pem"), tls_key=Path("key.pem"))


def test_half_of_tls_is_refused():
    with pytest.raises(ValidationError, match="both"):
        Settings(tls_certificate=Path("cert.pem"))


@pytest.mark.parametrize("listen", ["", "7420", "127.0.0.1", ":7420", "::1:7420", "a b:1"])
def test_an_address_without_host_or_port_is_refused(listen):
    with pytest.raises(ValidationError):
        Settings(listen=listen)


@pytest.mark.parametrize("url", ["mysql://x", "sqlite:///x", "postgresql://x"])
def test_a_database_we_do_not_speak_with_is_refused(url):
    with pytest.raises(ValidationError):
        Settings(database_url=url)


def test_a_mistyped_setting_is_refused_and_a_client_setting_is_not_ours(monkeypatch):
    monkeypatch.setenv("WIRTHFORGE_MARKETPLACE_URL", "http://127.0.0.1:7420")
    assert Settings()
    monkeypatch.setenv("WIRTHFORGE_MARKETPLACE_OPEN_REGISTRATON", "false")
    with pytest.raises(ValidationError, match="OPEN_REGISTRATON: no such setting"):
        Settings()


def test_settings_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("WIRTHFORGE_MARKETPLACE_OPEN_REGISTRATION", "false")
    monkeypatch.setenv("WIRTHFORGE_MIGRATIONS", "/srv/migrations")
    settings = Settings()
    assert (settings.open_registration, settings.migrations) == (False, Path("/srv/migrations"))
