"""The documents of a package that the build writes beside the manifest: ``lock.toml`` and ``sbom.cdx.json``.

Both tell what is vendored: the lock to host and marketplace, the SBOM (CycloneDX 1.6) to everybody else's
tools.
"""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from wirthforge_sdk.contracts import toml
from wirthforge_sdk.contracts.manifest import Manifest
from wirthforge_sdk.errors import PackageInvalidError
from wirthforge_sdk.packaging.names import shown

MAX_LOCK_BYTES = 4 * 1024 * 1024
MAX_LOCK_DOTS = 16

_NATIVE = re.compile(r"vendor/bin/.*|.*\.(?:so|pyd|dylib|node)(?:\.[0-9.]+)?")

# No value of these forms needs escaping in TOML, which is why the lock is written without a library.
PythonVersion = Annotated[str, StringConstraints(pattern=r"^3\.[0-9]{1,2}$")]
Platform = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]{1,20}-[a-z0-9_]{1,40}$")]
_NAMES = {
    "pypi": re.compile(r"[a-z0-9](?:[a-z0-9-]{0,100}[a-z0-9])?"),
    "npm": re.compile(r"(?:@[a-z0-9~-][a-z0-9._~-]{0,100}/)?[A-Za-z0-9~_-][A-Za-z0-9._~-]{0,200}"),
}
DistributionVersion = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9.+!_-]{1,100}$")]
Hex = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
LongHex = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{128}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class LockedPackage(_Strict):
    """One vendored distribution."""

    ecosystem: Literal["pypi", "npm"] = "pypi"
    name: Annotated[str, StringConstraints(max_length=214)]
    """Of PyPI, normalised (PEP 503)."""
    version: DistributionVersion
    sha256: Annotated[list[Hex], Field(max_length=2000)] = []
    """Of the files that may be installed for it; one of them was."""
    sha512: Annotated[list[LongHex], Field(max_length=20)] = []
    """The same, of npm."""

    @model_validator(mode="after")
    def _is_pinned(self) -> LockedPackage:
        if not _NAMES[self.ecosystem].fullmatch(self.name):
            raise ValueError(f"no package of {self.ecosystem} is named so")
        if not (self.sha512 if self.ecosystem == "npm" else self.sha256):
            raise ValueError("it has no hash")
        return self

    @property
    def purl(self) -> str:
        """The package URL (purl specification, types ``pypi`` and ``npm``)."""
        version = self.version.replace("+", "%2B").replace("!", "%21")
        return f"pkg:{self.ecosystem}/{self.name.replace('@', '%40')}@{version}"

    @property
    def hashes(self) -> list[tuple[str, str]]:
        """Algorithm, as CycloneDX names it, and digest; sorted."""
        return [("SHA-256", each) for each in sorted(self.sha256)] + [
            ("SHA-512", each) for each in sorted(self.sha512)
        ]


class Lock(_Strict):
    """``lock.toml``: what is vendored, and what it runs on."""

    python: PythonVersion
    platform: Platform
    """As uv names it, for example ``x86_64-manylinux_2_28``."""
    native: bool
    """Some file is machine code, so it runs on this platform and Python only."""
    packages: Annotated[list[LockedPackage], Field(max_length=2000)] = []


def parse_lock(data: bytes) -> Lock:
    """Reads ``lock.toml``.

    Raises:
        PackageInvalidError: It is not one.
    """
    try:
        return Lock.model_validate(toml.load(data, max_bytes=MAX_LOCK_BYTES, max_dots=MAX_LOCK_DOTS))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise _malformed_lock(f"{shown('.'.join(map(str, first['loc'])))}: {first['msg']}") from error
    except ValueError as error:
        raise _malformed_lock(str(error)) from error


def encode_lock(lock: Lock) -> bytes:
    """The bytes of ``lock.toml``: packages by name, hashes sorted, so that equal locks give equal bytes."""
    lines = [
        f'python = "{lock.python}"',
        f'platform = "{lock.platform}"',
        f"native = {str(lock.native).lower()}",
    ]
    for package in sorted(lock.packages, key=_by_name):
        lines += ["", "[[packages]]"]
        lines += [f'ecosystem = "{package.ecosystem}"'] if package.ecosystem != "pypi" else []
        lines += [f'name = "{package.name}"', f'version = "{package.version}"']
        for algorithm, digests in (("sha256", package.sha256), ("sha512", package.sha512)):
            if digests:
                lines += [f"{algorithm} = [", *(f'    "{digest}",' for digest in sorted(digests)), "]"]
    return "\n".join([*lines, ""]).encode()


def is_native(name: str) -> bool:
    """Whether the file ``name`` is machine code, by its name."""
    return _NATIVE.fullmatch(name) is not None


def encode_sbom(manifest: Manifest, lock: Lock) -> bytes:
    """The CycloneDX 1.6 document of a plugin; a function of its inputs alone, without time or chance."""
    root = f"pkg:generic/{manifest.name}@{manifest.version.replace('+', '%2B')}"
    packages = sorted(lock.packages, key=_by_name)
    content: dict[str, Any] = {
        "metadata": {
            "component": {
                "bom-ref": root,
                "type": "application",
                "name": manifest.name,
                "version": manifest.version,
                "description": manifest.summary,
                "licenses": [{"license": {"name": manifest.license}}],
                "purl": root,
            }
        },
        "components": [_component(package) for package in packages],
        "dependencies": [{"ref": root, "dependsOn": [package.purl for package in packages]}],
    }
    serial = uuid.uuid5(uuid.NAMESPACE_URL, f"{root}#{hashlib.sha256(_json(content)).hexdigest()}")
    head = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{serial}",
        "version": 1,
    }
    return _json({**head, **content})


def _component(package: LockedPackage) -> dict[str, Any]:
    return {
        "bom-ref": package.purl,
        "type": "library",
        "name": package.name,
        "version": package.version,
        "purl": package.purl,
        "hashes": [{"alg": algorithm, "content": digest} for algorithm, digest in package.hashes],
    }


def _by_name(package: LockedPackage) -> tuple[str, str]:
    return package.name, package.version


def _json(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def _malformed_lock(problem: str) -> PackageInvalidError:
    return PackageInvalidError(f"lock.toml {problem}: build the package again", entry="lock.toml")
