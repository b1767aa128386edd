"""Mails over a connection that the operator grants, by a client that knows nothing of sandboxes."""

import smtplib
from email.message import EmailMessage
from typing import Annotated, Any

from msgspec import Meta

from wirthforge_sdk.runtime import Plugin

SERVER, PORT = "mail.example.org", 25
TIMEOUT_S = 10

Address = Annotated[str, Meta(pattern=r"^[^@\s<>]{1,64}@[^@\s<>]{1,190}$")]
Line = Annotated[str, Meta(min_length=1, max_length=200, pattern=r"^[^\r\n]*$")]

plugin = Plugin()


@plugin.on_config_change
def changed(values: dict[str, Any]) -> None:
    """Says early what would fail with every mail."""
    if values.get("user") and plugin.secrets.get("password") is None:
        raise ValueError("a user needs a password: set the secret 'password' first")


@plugin.function(destructive=True)
def send(
    recipient: Address,
    subject: Line,
    text: Annotated[str, Meta(max_length=20_000)],
    server: str = SERVER,
    port: int = PORT,
) -> bool:
    """Sends a mail in the operator's name. The host refuses every server but the one of the manifest."""
    config = plugin.config.all()
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = config["sender"], recipient, subject
    mail.set_content(text)
    with smtplib.SMTP(server, port, timeout=TIMEOUT_S) as connection:
        if user := config.get("user"):
            connection.login(user, plugin.secrets["password"])
        refused = connection.send_message(mail)
    return not refused
