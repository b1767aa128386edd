"""Calls the plugin as a host would, with storage in memory."""

from pathlib import Path

import pytest

from wirthforge_sdk.testing import CallRefusedError, PluginHarness

PROJECT = Path(__file__).parents[1]


@pytest.fixture
def notes():
    with PluginHarness(PROJECT, grants=["storage.read", "storage.write"]) as harness:
        yield harness


def texts(found):
    return [note["text"] for note in found["result"]]


def test_a_note_is_stored_and_found_by_its_words_in_any_case(notes):
    note = notes.call_now("add", text="Buy Salt and pepper", tags=["home"])
    notes.call_now("add", text="Buy a boat")
    assert notes.storage[f"note/{note['id']}"]["tags"] == ["home"]
    assert notes.call_now("find", words="salt BUY")["result"] == [note]


def test_a_tag_narrows_what_is_found(notes):
    notes.call_now("add", text="one", tags=["home", "home"])
    notes.call_now("add", text="two", tags=["work"])
    assert texts(notes.call_now("find", tag="work")) == ["two"]


def test_notes_are_listed_by_age_a_page_at_a_time():
    stored = {
        f"note/{number}": {
            "id": str(number),
            "text": f"n{number}",
            "tags": [],
            "created": "2026-01-01T00:00:00Z",
        }
        for number in (3, 1, 2)
    }
    with PluginHarness(PROJECT, grants=["storage"], storage=stored) as notes:
        page = notes.call_now("list_notes", limit=2)
        assert texts(page) == ["n1", "n2"]
        assert texts(notes.call_now("list_notes", after=page["result"][-1]["id"])) == ["n3"]


def test_a_removed_note_is_gone_and_removing_it_again_says_so(notes):
    note = notes.call_now("add", text="short-lived")
    assert notes.call_now("remove", id=note["id"])["result"] is True
    assert notes.call_now("remove", id=note["id"])["result"] is False
    assert notes.storage == {}


def test_a_tag_must_be_a_word(notes):
    with pytest.raises(CallRefusedError, match="tags") as refused:
        notes.call_now("add", text="x", tags=["Not a tag"])
    assert refused.value.reason == "INVALID_PARAMETERS"
    assert notes.storage == {}


def test_without_the_right_to_write_adding_is_denied_and_finding_works():
    with PluginHarness(PROJECT, grants=["storage.read"]) as notes:
        with pytest.raises(CallRefusedError) as refused:
            notes.call_now("add", text="x")
        assert (refused.value.reason, refused.value.permission) == ("PERMISSION_DENIED", "storage.write")
        assert notes.call_now("find")["result"] == []
        assert notes.denials == ["storage.write"]
