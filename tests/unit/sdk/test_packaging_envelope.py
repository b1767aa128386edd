from __future__ import annotations

import base64
import json

import pytest

from wirthforge_sdk.contracts.statement import PAYLOAD_TYPE
from wirthforge_sdk.errors import SignatureInvalidError
from wirthforge_sdk.packaging.envelope import pre_authentication_encoding, seal, unseal
from wirthforge_sdk.packaging.keys import SigningKey

KEY = SigningKey.generate()


def test_the_published_example_of_the_encoding_is_met() -> None:
    """secure-systems-lab/dsse, ``protocol.md``, test vectors."""
    encoded = pre_authentication_encoding("http://example.com/HelloWorld", b"hello world")

    assert encoded == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"


def test_lengths_are_of_bytes_not_of_characters() -> None:
    assert pre_authentication_encoding("é", "é".encode()) == "DSSEv1 2 é 2 é".encode()


def test_type_and_payload_cannot_trade_places() -> None:
    assert pre_authentication_encoding("a b", b"c") != pre_authentication_encoding("a", b"b c")


def test_a_sealed_payload_comes_back_with_its_signer() -> None:
    opened = unseal(seal(b"payload", KEY), [SigningKey.generate().public, KEY.public])

    assert opened == (b"payload", KEY.public)


def test_an_envelope_is_what_any_dsse_reader_expects() -> None:
    envelope = json.loads(seal(b"payload", KEY))

    assert envelope["payloadType"] == PAYLOAD_TYPE
    assert base64.b64decode(envelope["payload"]) == b"payload"
    [signature] = envelope["signatures"]
    assert signature["keyid"] == KEY.public.keyid
    message = b"DSSEv1 28 application/vnd.in-toto+json 7 payload"
    KEY.public.verify(message, base64.b64decode(signature["sig"]))


def test_sealing_twice_gives_the_same_envelope() -> None:
    assert seal(b"payload", KEY) == seal(b"payload", KEY)


@pytest.mark.parametrize("accepted", [[], [SigningKey.generate().public]])
def test_a_key_that_is_not_accepted_opens_nothing(accepted: list[object]) -> None:
    with pytest.raises(SignatureInvalidError):
        unseal(seal(b"payload", KEY), accepted)  # type: ignore[arg-type]
