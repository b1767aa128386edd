"""Mails over a connection that the operator grants, by a client that knows nothing of sandboxes."""

import smtplib
from email.message import EmailMessage
from typing import Annotated

from msgspec import Meta

from wirthforge_sdk.runtime import Plugin

SERVER, PORT = "mail.example.org", 25
TIMEOUT_S = 10

Address = Annotated[str, Meta(pattern=r"^[^@\s<>]{1,64}@[^@\s<>]{1,190}$")]
Line = Annotated[str, Meta(min_length=1, max_length=200, pattern=r"^[^\r\n]*$")]

plugin = Plugin()


@plugin.function(destructive=True)
def send(
    sender: Address,
    recipient: Address,
    subject: Line,
    text: Annotated[str, Meta(max_length=20_000)],
    server: str = SERVER,
    port: int = PORT,
) -> bool:
    """Sends a mail. The host refuses every server but the one of the manifest."""
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = sender, recipient, subject
    mail.set_content(text)
    with smtplib.SMTP(server, port, timeout=TIMEOUT_S) as connection:
        refused = connection.send_message(mail)
    return not refused
