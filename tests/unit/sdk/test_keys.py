from __future__ import annotations

import base64
import hashlib
import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from wirthforge_sdk.errors import ConflictError, InvalidInputError, KeyUnreadableError, SignatureInvalidError
from wirthforge_sdk.packaging.keys import _SMALL_ORDER_Y, PublicKey, SigningKey

PASSPHRASE = "correct horse battery"

# RFC 8032 section 7.1, test 3.
RFC_PUBLIC = bytes.fromhex("fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025")
RFC_MESSAGE = bytes.fromhex("af82")
RFC_SIGNATURE = bytes.fromhex(
    "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
    "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a"
)


def test_a_published_signature_verifies() -> None:
    PublicKey(RFC_PUBLIC).verify(RFC_MESSAGE, RFC_SIGNATURE)


@pytest.mark.parametrize("signature", [b"", RFC_SIGNATURE[:-1], RFC_SIGNATURE + b"\0", bytes(64)])
def test_another_signature_does_not_verify(signature: bytes) -> None:
    with pytest.raises(SignatureInvalidError, match="not by key"):
        PublicKey(RFC_PUBLIC).verify(RFC_MESSAGE, signature)


def test_a_signature_of_another_message_does_not_verify() -> None:
    with pytest.raises(SignatureInvalidError):
        PublicKey(RFC_PUBLIC).verify(b"another", RFC_SIGNATURE)


def test_a_public_key_survives_its_text_form() -> None:
    key = PublicKey(RFC_PUBLIC)

    assert str(key) == "ed25519:" + base64.b64encode(RFC_PUBLIC).decode()
    assert PublicKey.parse(str(key)) == key
    assert key.keyid == "sha256:" + hashlib.sha256(RFC_PUBLIC).hexdigest()


TEXT = "ed25519:" + base64.b64encode(RFC_PUBLIC).decode()


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param(TEXT.removeprefix("ed25519:"), id="no prefix"),
        pytest.param("rsa:" + TEXT, id="another prefix"),
        pytest.param(TEXT[:-1], id="no padding"),
        pytest.param(TEXT + "\n", id="line feed"),
        pytest.param(TEXT[:-2] + "V=", id="bits that decoding ignores"),
        pytest.param("ed25519:" + base64.b64encode(bytes(31)).decode(), id="31 bytes"),
        pytest.param("ed25519:" + base64.b64encode(bytes(33)).decode(), id="33 bytes"),
        pytest.param("ed25519:é", id="not ASCII"),
    ],
)
def test_a_text_that_is_no_public_key_is_refused(text: str) -> None:
    with pytest.raises(KeyUnreadableError):
        PublicKey.parse(text)


def test_the_refused_points_are_exactly_those_of_small_order() -> None:
    """By the curve: doubled three times they are the identity, and there are eight such points."""
    prime = 2**255 - 19
    d = -121665 * pow(121666, -1, prime) % prime

    def x_of(y: int) -> int | None:
        square = (y * y - 1) * pow(d * y * y + 1, -1, prime) % prime
        root = pow(square, (prime + 3) // 8, prime)
        if root * root % prime != square:
            root = root * pow(2, (prime - 1) // 4, prime) % prime
        return root if root * root % prime == square else None

    def doubled(x: int, y: int) -> tuple[int, int]:
        product = d * x * x * y * y % prime
        return (
            2 * x * y * pow(1 + product, -1, prime) % prime,
            (y * y + x * x) * pow(1 - product, -1, prime) % prime,
        )

    points = set()
    for y in _SMALL_ORDER_Y:
        x = x_of(y)
        assert x is not None
        for point in ((x, y), (-x % prime, y)):
            assert doubled(*doubled(*doubled(*point))) == (0, 1)
            points.add(point)
    assert len(points) == 8


@pytest.mark.parametrize("passphrase", [None, PASSPHRASE])
def test_a_saved_key_is_read_back_and_signs_the_same(tmp_path: Path, passphrase: str | None) -> None:
    key = SigningKey.generate()
    path = tmp_path / "author.pem"

    key.save(path, passphrase=passphrase)
    loaded = SigningKey.load(path, passphrase=passphrase)

    assert loaded.public == key.public
    assert loaded.sign(b"message") == key.sign(b"message")
    assert [child.name for child in tmp_path.iterdir()] == ["author.pem"]


def test_a_key_file_is_private_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        SigningKey.generate().save(tmp_path / "author.pem", passphrase=None)
    finally:
        os.umask(before)

    assert (tmp_path / "author.pem").stat().st_mode & 0o777 == 0o600


def test_a_key_file_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "author.pem"
    key = SigningKey.generate()
    key.save(path, passphrase=None)

    with pytest.raises(ConflictError, match="exists"):
        SigningKey.generate().save(path, passphrase=None)

    assert SigningKey.load(path).public == key.public
    assert len(list(tmp_path.iterdir())) == 1


def test_a_passphrase_is_the_same_however_it_is_composed(tmp_path: Path) -> None:
    path = tmp_path / "author.pem"
    SigningKey.generate().save(path, passphrase="caf\u00e9 caf\u00e9 caf\u00e9")

    SigningKey.load(path, passphrase="cafe\u0301 cafe\u0301 cafe\u0301")


def test_a_short_passphrase_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="12 characters"):
        SigningKey.generate().save(tmp_path / "author.pem", passphrase="secret")

    assert not list(tmp_path.iterdir())


def test_a_plain_key_that_others_can_read_is_refused_with_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "author.pem"
    SigningKey.generate().save(path, passphrase=None)
    path.chmod(0o640)

    with pytest.raises(KeyUnreadableError, match="chmod 600"):
        SigningKey.load(path)


def test_an_encrypted_key_that_others_can_read_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "author.pem"
    SigningKey.generate().save(path, passphrase=PASSPHRASE)
    path.chmod(0o644)

    SigningKey.load(path, passphrase=PASSPHRASE)


@pytest.mark.parametrize(
    ("saved", "given", "says"),
    [
        (PASSPHRASE, "another passphrase", "passphrase is wrong"),
        (PASSPHRASE, None, "give its passphrase"),
        (None, PASSPHRASE, "give no passphrase"),
    ],
)
def test_a_passphrase_that_does_not_fit_is_told(
    tmp_path: Path, saved: str | None, given: str | None, says: str
) -> None:
    path = tmp_path / "author.pem"
    SigningKey.generate().save(path, passphrase=saved)

    with pytest.raises(KeyUnreadableError, match=says):
        SigningKey.load(path, passphrase=given)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "not a PEM private key"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "not a PEM private key"),
        (b"x" * 20_000, "too large"),
    ],
)
def test_a_damaged_key_file_is_told(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "author.pem"
    path.write_bytes(content)
    path.chmod(0o600)

    with pytest.raises(KeyUnreadableError, match=says):
        SigningKey.load(path)


def test_a_key_of_another_kind_is_told(tmp_path: Path) -> None:
    path = tmp_path / "author.pem"
    pem = generate_private_key(SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(pem)
    path.chmod(0o600)

    with pytest.raises(KeyUnreadableError, match="not an Ed25519 key"):
        SigningKey.load(path)


def test_a_missing_key_file_and_a_directory_are_told(tmp_path: Path) -> None:
    for path in (tmp_path / "none.pem", tmp_path):
        with pytest.raises(KeyUnreadableError, match="cannot be read"):
            SigningKey.load(path)


def test_a_key_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(KeyUnreadableError, match="cannot be written"):
        SigningKey.generate().save(tmp_path / "none" / "author.pem", passphrase=None)


def test_a_signing_key_does_not_show_its_secret() -> None:
    key = SigningKey.generate()
    secret = key._private.private_bytes_raw()

    assert repr(key) == f"SigningKey({key.public})"
    assert secret.hex() not in repr(key)
