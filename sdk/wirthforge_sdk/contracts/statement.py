"""The package statement: an in-toto Statement v1 that names every file of a package, and who signs for it.

Source: in-toto attestation framework, ``spec/v1/statement.md``. The subjects are *all* files of the package except
the statement and its envelope; size and mode ride as resource annotations, so a rename, a changed mode, an added or a
missing file breaks the statement as surely as a changed byte. The author signs it in a DSSE envelope
(``secure-systems-lab/dsse`` protocol, version 1).
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from wirthforge_sdk.contracts.identifiers import Digest, PluginName
from wirthforge_sdk.contracts.versions import VersionText

SIGNATURES = ".wirthforge/"
STATEMENT_PATH = f"{SIGNATURES}statement.json"
ENVELOPE_PATH = f"{SIGNATURES}author.dsse.json"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE: Final = "https://wirthforge.dev/statement/package/v1"

MAX_FILES = 20_000
MAX_FILE_BYTES = 64 * 1024 * 1024
MAX_UNPACKED_BYTES = 512 * 1024 * 1024
MAX_PACKAGE_BYTES = 128 * 1024 * 1024
MAX_STATEMENT_BYTES = 8 * 1024 * 1024

Mode = Literal["0644", "0755"]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Sha256(_Strict):
    """A digest set with the one algorithm we take."""

    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class FileAnnotations(_Strict):
    """What a digest does not tell of a file."""

    size: Annotated[int, Field(ge=0, le=MAX_FILE_BYTES)]
    """Bytes."""
    mode: Mode


class Subject(_Strict):
    """One file of the package."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=512)]
    digest: Sha256
    annotations: FileAnnotations


class Predicate(_Strict):
    """Which release these files are."""

    name: PluginName
    version: VersionText
    content: Digest
    """Of the subjects as they lie in the archive, packed: a signature stands for one package, bit by bit."""


class Statement(_Strict):
    """The statement as it is signed; serialised with RFC 8785 (JCS)."""

    type: Annotated[Literal["https://in-toto.io/Statement/v1"], Field(alias="_type")] = STATEMENT_TYPE
    subject: Annotated[list[Subject], Field(min_length=1, max_length=MAX_FILES)]
    predicateType: Literal["https://wirthforge.dev/statement/package/v1"] = PREDICATE_TYPE  # noqa: N815 (in-toto's name)
    predicate: Predicate


class Signature(_Strict):
    """One signature of an envelope."""

    keyid: Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
    """Digest of the raw 32-byte Ed25519 public key."""
    sig: Annotated[str, StringConstraints(max_length=128)]
    """Standard base64."""


class Envelope(_Strict):
    """A DSSE envelope."""

    payloadType: Literal["application/vnd.in-toto+json"]  # noqa: N815 (DSSE's name)
    payload: Annotated[str, StringConstraints(max_length=2 * MAX_STATEMENT_BYTES)]
    signatures: Annotated[list[Signature], Field(min_length=1, max_length=8)]
