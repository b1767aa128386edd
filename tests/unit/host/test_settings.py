"""What an operator of the host may set, and what is refused."""

import os

import pytest

from wirthforge_host.settings import Settings
from wirthforge_sdk.errors import InvalidInputError
from wirthforge_sdk.serving.settings import load

PREFIX = "WIRTHFORGE_HOST_"


@pytest.fixture
def settings_of(monkeypatch):
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        monkeypatch.delenv(name)

    def settings(**values):
        for name, value in values.items():
            monkeypatch.setenv(f"{PREFIX}{name.upper()}", value)
        return load(Settings)

    return settings


def test_what_is_not_set_has_a_safe_default(settings_of):
    settings = settings_of()
    assert (settings.address, settings.port, settings.insecure_listen) == ("127.0.0.1", 7410, False)


@pytest.mark.parametrize("listen", ["0.0.0.0:7410", "[::]:7410", "192.168.1.5:80", "host.example.org:443"])
def test_an_address_that_others_reach_needs_tls_or_the_flag(settings_of, listen):
    with pytest.raises(InvalidInputError, match="TLS_CERTIFICATE"):
        settings_of(listen=listen)
    assert settings_of(insecure_listen="true").listen == listen
    secured = settings_of(insecure_listen="false", tls_certificate="/etc/c.pem", tls_key="/etc/k.pem")
    assert secured.listen == listen


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"lisetn": "127.0.0.1:1"}, "LISETN"),
        ({"listen": "127.0.0.1"}, "LISTEN"),
        ({"uid_base": "0"}, "UID_BASE"),
        ({"uid_count": "5", "max_instances": "6"}, "UID_COUNT"),
        ({"uid_base": "2147483000", "uid_count": "2000"}, "UID_BASE"),
        ({"marketplace_url": "ftp://x"}, "MARKETPLACE_URL"),
        ({"host_id": "Not A Label"}, "HOST_ID"),
        ({"engine_url": "docker"}, "ENGINE_URL"),
    ],
)
def test_a_wrong_value_stops_the_start_and_names_the_setting(settings_of, values, named):
    with pytest.raises(InvalidInputError, match=named):
        settings_of(**values)


def test_a_refused_value_is_not_repeated(settings_of):
    with pytest.raises(InvalidInputError) as refused:
        settings_of(marketplace_url="s3cret", uid_base="s3cret")
    assert "s3cret" not in refused.value.message


def test_settings_do_not_change(settings_of):
    settings = settings_of()
    with pytest.raises(ValueError, match="frozen"):
        settings.listen = "0.0.0.0:1"
