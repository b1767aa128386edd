"""Taking secrets out of what a plugin wrote."""

import base64
import json
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wirthforge_host.configuration.redaction import (
    MARGIN,
    MAX_FORMS,
    REDACTED,
    SHORTEST,
    forms_of,
    redacted,
    redacted_json,
)
from wirthforge_sdk.contracts.bridge import MAX_SECRET_BYTES

KEY = 'sk-"live"/+é\\0042&x'


@pytest.mark.parametrize(
    "written",
    [
        KEY,
        json.dumps(KEY),
        json.dumps(KEY, ensure_ascii=False),
        repr(KEY),
        quote(KEY, safe=""),
        KEY.encode().hex(),
        KEY.encode().hex().upper(),
        base64.b64encode(KEY.encode()).decode(),
        base64.urlsafe_b64encode(KEY.encode()).decode(),
    ],
)
def test_a_secret_is_taken_out_in_every_usual_form(written):
    clean = redacted(f"before {written} after", forms_of([KEY]))
    assert REDACTED in clean
    assert KEY[4:8] not in clean
    assert (clean[:7], clean[-6:]) == ("before ", " after")


@given(
    secret=st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=12, max_size=60),
    before=st.binary(max_size=5),
    after=st.binary(max_size=5),
)
def test_whatever_stands_around_it_in_base64_it_is_found(secret, before, after):
    """As in HTTP's basic authentication: what is encoded is ``user:secret``."""
    written = base64.b64encode(before + secret.encode() + after).decode()
    clean = redacted(written, forms_of([secret]))
    # At most two characters on each side are made of its bits and of others'.
    assert len(clean.replace(REDACTED, "")) <= 4 * (len(before) + len(after)) / 3 + 8
    assert REDACTED in clean


def test_each_line_of_a_secret_with_several_is_one():
    lines = ["-----BEGIN KEY-----", "MIIBVgIBADANBgkqhkiG9w0", "-----END KEY-----"]
    forms = forms_of(["\n".join(lines)])
    assert redacted(f"read: {lines[1]}", forms) == f"read: {REDACTED}"


def test_a_secret_that_is_part_of_another_does_not_leave_the_rest_of_it():
    assert redacted("password-long", forms_of(["password", "password-long"])) == REDACTED


def test_what_is_too_short_to_be_told_from_other_words_stays():
    assert redacted("the end", forms_of(["the"])) == "the end"
    assert len("a" * SHORTEST) == SHORTEST
    assert redacted("aaaaaa", forms_of(["a" * SHORTEST])) == REDACTED


def test_json_keeps_its_form_and_loses_the_secret_also_as_a_key():
    forms = forms_of([KEY])
    value = {"a": [1, {"key": KEY}], KEY: "x"}
    assert redacted_json(value, forms) == {"a": [1, {"key": REDACTED}], REDACTED: "x"}
    assert redacted_json(value, ()) is value
    clean = {"a": [1.5, None]}
    assert redacted_json(clean, forms) is clean


def test_what_is_no_json_without_the_secret_is_none_of_it():
    assert redacted_json({"n": 123456789}, forms_of(["123456"])) == REDACTED


def test_forms_are_bounded_in_number_and_length():
    forms = forms_of(f"{number:x<20}" for number in range(MAX_FORMS))
    assert len(forms) == MAX_FORMS
    for character in ("x", "\x01", "é", "€"):
        secret = character * (MAX_SECRET_BYTES // len(character.encode()))
        assert max(map(len, forms_of([secret]))) <= MARGIN
