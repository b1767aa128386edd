"""Who the user is: ``login``, ``whoami`` and the signing keys."""

# ruff: noqa: PLC0415 (what is slow to import is imported by the command that needs it)

from __future__ import annotations

import base64
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from wirthforge_sdk.cli import keyring, services
from wirthforge_sdk.cli.output import Answer, can_ask, working
from wirthforge_sdk.cli.settings import Service, Settings, checked_token, load_settings, read_secret
from wirthforge_sdk.errors import InvalidInputError

KeyName = Annotated[
    str, typer.Argument(metavar="KEY", help="Name of a key of yours, or the path of its file.")
]


async def login(
    host: Annotated[
        str | None, typer.Option(metavar="URL", help="Log in to the host at this address.")
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(help="File with the token, such as the one the host left at its first start."),
    ] = None,
    marketplace: Annotated[
        str | None, typer.Option(metavar="URL", help="Log in to the marketplace at this address.")
    ] = None,
    register: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Open an account there, with the namespace of its name."),
    ] = None,
    token_stdin: Annotated[  # noqa: FBT002 (an option)
        bool, typer.Option("--token-stdin", help="Read the token from stdin.")
    ] = False,
) -> Answer:
    """Store a token for the marketplace, or with --host for a host.

    A token is tried before it is stored, is kept in a file that only you can read, and is never shown.
    """
    settings = load_settings()
    if host is not None:
        if register or marketplace:
            raise InvalidInputError("--host goes with neither --register nor --marketplace: log in twice")
        service = replace(settings.host, url=host)
        return await _login_host(settings, service, _given_token(service, token_file, token_stdin))
    service = replace(settings.marketplace, url=marketplace or settings.marketplace.url)
    if register is not None:
        return await _register(settings, service, register)
    return await _login_marketplace(settings, service, _given_token(service, token_file, token_stdin))


async def whoami() -> Answer:
    """Tell which host and marketplace are used, and as whom."""
    settings = load_settings()
    market: dict[str, Any] = {"url": settings.marketplace.url, "account": None, "namespaces": []}
    if settings.marketplace.token() is not None:
        async with services.marketplace(settings, as_author=True) as client:
            account = await client.account()
        market |= {"account": account.name, "namespaces": account.namespaces}
    host = {"url": settings.host.url, "logged_in": settings.host.token() is not None}

    def view() -> Any:
        from wirthforge_sdk.cli import views

        return views.facts(
            [
                ("Marketplace", market["url"]),
                ("Account", market["account"] or "none: run `wirthforge login --register NAME`"),
                ("Namespaces", ", ".join(market["namespaces"])),
                ("Host", host["url"]),
                (
                    "Token",
                    "stored"
                    if host["logged_in"]
                    else "none: run `wirthforge login --host URL --token-file FILE`",
                ),
            ]
        )

    return Answer({"marketplace": market, "host": host}, view)


def new_key(
    name: Annotated[str, typer.Argument(help="What to call it here.")] = keyring.DEFAULT_NAME,
    no_passphrase: Annotated[  # noqa: FBT002 (an option)
        bool, typer.Option("--no-passphrase", help="Protect it by the mode of its file alone.")
    ] = False,
) -> Answer:
    """Make a signing key, protected by a passphrase.

    The passphrase is asked for, or read from the file that WIRTHFORGE_KEY_PASSPHRASE_FILE names.
    """
    from wirthforge_sdk.contracts.identifiers import check_slug
    from wirthforge_sdk.packaging.keys import SigningKey

    settings = load_settings()
    path = settings.private_directory(settings.keys) / f"{check_slug(name, field='name')}.key"
    key = SigningKey.generate()
    key.save(path, passphrase=None if no_passphrase else keyring.new_passphrase(settings))
    path.with_suffix(".pub").write_text(f"{key.public}\n", encoding="utf-8")
    value = _described(name, path)
    hint = f"Next: wirthforge keys register {name}"
    return Answer(value, lambda: f"The key {name} is in {path}.\n{value['keyid']}\n{hint}")


async def list_keys(
    registered: Annotated[  # noqa: FBT002 (an option)
        bool, typer.Option("--registered", help="Those the marketplace knows as yours.")
    ] = False,
) -> Answer:
    """List your signing keys."""
    if registered:
        return await _registered_keys()
    settings = load_settings()
    keys = [_described(path.stem, path) for path in sorted(settings.keys.glob("*.key"))]

    def view() -> Any:
        from wirthforge_sdk.cli import views

        if not keys:
            return "There is no key yet: make one with `wirthforge keys new`."
        return views.table(
            ("Name", "Key id", "File"), [(key["name"], key["keyid"], key["path"]) for key in keys]
        )

    return Answer(keys, view)


def show_key(name: KeyName = keyring.DEFAULT_NAME) -> Answer:
    """Show the public half of a key."""
    value = _described(name, keyring.key_path(load_settings(), name))

    def view() -> Any:
        from wirthforge_sdk.cli import views

        return views.facts(
            [("Key id", value["keyid"]), ("Public key", value["public_key"]), ("File", value["path"])]
        )

    return Answer(value, view)


async def register_key(
    name: KeyName = keyring.DEFAULT_NAME,
    label: Annotated[
        str | None, typer.Option(help="What the marketplace calls it; its name by default.")
    ] = None,
) -> Answer:
    """Tell the marketplace that a key is yours; from then on it takes releases signed by it."""
    from wirthforge_sdk.client.connection import given
    from wirthforge_sdk.contracts.marketplace_api import KeyIn, key_proof_message

    settings = load_settings()
    key = keyring.open_key(settings, name)
    async with services.marketplace(settings, as_author=True) as market:
        account = await market.account()
        proof = key.sign(key_proof_message(account.name, str(key.public)))
        with given():
            body = KeyIn(
                public_key=str(key.public),
                label=label or Path(name).stem,
                proof=base64.b64encode(proof).decode(),
            )
        registered = await market.register_key(body)
    return Answer(registered, lambda: f"{registered.keyid}\nsigns for {registered.account} from now on.")


async def revoke_key(
    key: Annotated[str, typer.Argument(help="Its key id, or its name here.")],
) -> Answer:
    """End a key: the marketplace takes no further release signed by it.

    What was published stays.
    """
    settings = load_settings()
    keyid = key if key.startswith("sha256:") else keyring.public_key(settings, key).keyid
    async with services.marketplace(settings, as_author=True) as market:
        await market.revoke_key(keyid)
    return Answer({"keyid": keyid, "revoked": True}, lambda: f"{keyid}\nsigns no further release.")


async def _login_host(settings: Settings, service: Service, token: str) -> Answer:
    from wirthforge_sdk.client import HostClient

    with working(f"Logging in at {service.url}"):
        async with HostClient(service.url, token) as client:
            await client.plugins()
    return _stored(settings, service, token, account=None)


async def _login_marketplace(settings: Settings, service: Service, token: str) -> Answer:
    from wirthforge_sdk.client import MarketplaceClient

    with working(f"Logging in at {service.url}"):
        async with MarketplaceClient(service.url, token) as client:
            account = await client.account()
    return _stored(settings, service, token, account=account.name)


async def _register(settings: Settings, service: Service, name: str) -> Answer:
    from wirthforge_sdk.client import MarketplaceClient

    with working(f"Opening the account {name}"):
        async with MarketplaceClient(service.url) as client:
            registration = await client.register(name)
        # First of all: this token is shown once, and whatever fails later must not lose it.
        answer = _stored(settings, service, registration.token.secret, account=name)
        if name not in registration.account.namespaces:
            async with MarketplaceClient(service.url, registration.token.secret) as client:
                await client.claim(name)
    return answer


def _stored(settings: Settings, service: Service, token: str, *, account: str | None) -> Answer:
    path = settings.store_login(service.name, url=service.url, token=token, account=account)
    value = {"service": service.name, "url": service.url, "account": account, "token_file": str(path)}
    who = f" as {account}" if account else ""
    return Answer(value, lambda: f"Logged in to the {service.name} at {service.url}{who}.")


def _given_token(service: Service, path: Path | None, from_stdin: bool) -> str:  # noqa: FBT001 (private)
    if path is not None:
        return checked_token(read_secret(path), service.name)
    if from_stdin:
        return checked_token(sys.stdin.readline(512), service.name)
    if not can_ask():
        raise InvalidInputError("give the token with --token-file FILE or --token-stdin", field="token")
    return checked_token(typer.prompt("Token", hide_input=True, err=True), service.name)


def _described(name: str, path: Path) -> dict[str, str]:
    key = keyring.public_key(load_settings(), str(path.absolute()))
    return {"name": Path(name).stem, "keyid": key.keyid, "public_key": str(key), "path": str(path)}


async def _registered_keys() -> Answer:
    async with services.marketplace(as_author=True) as market:
        page = await market.keys()
        keys = list(page.items)
        while page.next is not None:
            page = await market.keys(cursor=page.next)
            keys += page.items

    def view() -> Any:
        from wirthforge_sdk.cli import views

        rows = [(key.label, key.keyid, "revoked" if key.revoked_at else "in use") for key in keys]
        return views.table(("Label", "Key id", "Standing"), rows)

    return Answer(keys, view)
