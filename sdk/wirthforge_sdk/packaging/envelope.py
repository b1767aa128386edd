"""Signed statements: DSSE v1 envelopes (secure-systems-lab/dsse, ``protocol.md`` and ``envelope.md``).

An envelope of ours has exactly one signature and one encoding: JSON by RFC 8785, standard base64 with
padding. DSSE allows more; whatever allows two encodings of one thing is refused here, so that an envelope
cannot be changed without it being seen.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection
from typing import NamedTuple

import rfc8785
from pydantic import ValidationError

from wirthforge_sdk.contracts.statement import MAX_STATEMENT_BYTES, PAYLOAD_TYPE, Envelope, Signature
from wirthforge_sdk.errors import PackageInvalidError, SignatureInvalidError
from wirthforge_sdk.packaging.keys import PublicKey, SigningKey

MAX_ENVELOPE_BYTES = MAX_STATEMENT_BYTES * 4 // 3 + 1024
"""Base64 of the largest payload, and the rest."""


class Opened(NamedTuple):
    """What an envelope held, and whose signature of it was verified."""

    payload: bytes
    signer: PublicKey


def pre_authentication_encoding(payload_type: str, payload: bytes) -> bytes:
    """The bytes that are signed (DSSE's PAE): unambiguous, no payload passes as one of another type."""
    name = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(name), name, len(payload), payload)


def seal(payload: bytes, key: SigningKey) -> bytes:
    """The envelope of ``payload``, signed by ``key``; equal inputs give equal bytes."""
    signature = key.sign(pre_authentication_encoding(PAYLOAD_TYPE, payload))
    return _encoded(
        Envelope(
            payloadType=PAYLOAD_TYPE,
            payload=base64.b64encode(payload).decode(),
            signatures=[Signature(keyid=key.public.keyid, sig=base64.b64encode(signature).decode())],
        )
    )


def unseal(data: bytes, accepted: Collection[PublicKey]) -> Opened:
    """The payload of the envelope ``data``, when one of the ``accepted`` keys signed it.

    Raises:
        PackageInvalidError: It is not an envelope that :func:`seal` would have written.
        SignatureInvalidError: None of the keys signed it; always so when none is given.
    """
    if not accepted:
        raise SignatureInvalidError(
            "no key is trusted here, so nothing can be verified: give the author's public key"
        )
    envelope = _decoded(data)
    payload = _from_base64(envelope.payload, "payload")
    signature = envelope.signatures[0]
    signer = next((key for key in accepted if key.keyid == signature.keyid), None)
    if signer is None:
        raise SignatureInvalidError(
            f"signed by key {signature.keyid}, not trusted here: make sure whose it is, then trust it",
            keyid=signature.keyid,
        )
    signer.verify(
        pre_authentication_encoding(envelope.payloadType, payload), _from_base64(signature.sig, "signature")
    )
    return Opened(payload, signer)


def _encoded(envelope: Envelope) -> bytes:
    return rfc8785.dumps(envelope.model_dump(mode="json"))


def _decoded(data: bytes) -> Envelope:
    if len(data) > MAX_ENVELOPE_BYTES:
        raise _malformed(f"is over {MAX_ENVELOPE_BYTES} bytes")
    try:
        envelope = Envelope.model_validate_json(data)
    except ValidationError as error:
        raise _malformed(error.errors(include_url=False)[0]["msg"]) from error
    if len(envelope.signatures) != 1:
        raise _malformed("has more than one signature")
    if _encoded(envelope) != data:
        raise _malformed("is not canonical JSON")
    return envelope


def _from_base64(text: str, part: str) -> bytes:
    try:
        decoded = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise _malformed(f"has a {part} that is not base64") from error
    if base64.b64encode(decoded).decode() != text:  # bits that decoding ignores
        raise _malformed(f"has a {part} that is not canonical base64")
    return decoded


def _malformed(problem: str) -> PackageInvalidError:
    return PackageInvalidError(f"the envelope {problem}: sign the package again", entry="envelope")
