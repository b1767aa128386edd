"""Signed notes, beside those that other programs sign."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wirthforge_sdk.errors import InvalidInputError, SignatureInvalidError
from wirthforge_sdk.packaging.keys import PublicKey, SigningKey
from wirthforge_sdk.packaging.signed_note import MAX_NOTE_BYTES, opened, signed

# The example of golang.org/x/mod/sumdb/note.
KEY = PublicKey(base64.b64decode("ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW")[1:])
NAME = "PeterNeumann"
TEXT = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
SIGNED = "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM="
SIGNATURE = f"— {NAME} {SIGNED}\n"
OURS = SigningKey.generate()


def test_a_note_that_another_program_signed_is_opened():
    assert opened(f"{TEXT}\n{SIGNATURE}", NAME, KEY) == TEXT
    other = f"— somebody {base64.b64encode(bytes(68)).decode()}\n"
    assert opened(f"{TEXT}\n{other}{SIGNATURE}", NAME, KEY) == TEXT


@given(st.text(st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="\ufffd"), max_size=200))
def test_what_is_signed_is_opened(text):
    note = signed(f"{text}\n", "tests/log", OURS)
    assert opened(note, "tests/log", OURS.public) == f"{text}\n"


@pytest.mark.parametrize(
    "changed",
    [
        TEXT.replace("answer", "Answer") + "\n" + SIGNATURE,
        TEXT + "\n" + SIGNATURE.replace("x08go", "x08gp"),
        TEXT + "\n" + SIGNATURE.replace("PeterNeumann", "PeterNewmann"),
        TEXT + "\n" + SIGNATURE.replace("ZJku", "ZJkv"),
    ],
)
def test_a_note_that_was_changed_is_not_trusted(changed):
    with pytest.raises(SignatureInvalidError):
        opened(changed, NAME, KEY)


@pytest.mark.parametrize(
    "junk",
    [
        "",
        TEXT,
        f"{TEXT}\n",
        TEXT + SIGNATURE,
        f"{TEXT}\n{SIGNATURE}"[:-1],
        f"{TEXT}\n{SIGNATURE}more\n",
        f"{TEXT}\n— PeterNeumann\n",
        f"{TEXT}\n— PeterNeumann !!!!\n",
        f"{TEXT}\x00\n{SIGNATURE}",
        f"{TEXT}\n" + SIGNATURE * 17,
        "x" * (MAX_NOTE_BYTES + 1),
    ],
)
def test_what_is_no_note_is_refused(junk):
    with pytest.raises(InvalidInputError):
        opened(junk, NAME, KEY)


@pytest.mark.parametrize(
    ("text", "name"), [("no end", "a"), ("a\n", "a b"), ("a\n", "a+b"), ("a\n", ""), ("\x07\n", "a")]
)
def test_what_a_note_cannot_hold_is_not_signed(text, name):
    with pytest.raises(ValueError, match=r"of a (note|signer)"):
        signed(text, name, OURS)
