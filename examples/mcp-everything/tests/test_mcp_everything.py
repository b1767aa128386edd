"""Builds the package, with the server from npm in it, and calls the server where the sandbox would."""

import zipfile
from pathlib import Path

import pytest

from wirthforge_sdk.packaging.build import build
from wirthforge_sdk.testing import PluginHarness

PROJECT = Path(__file__).parents[1]


@pytest.mark.e2e  # the build takes the server from the package registry
@pytest.mark.timeout(180)
def test_the_unmodified_server_echoes_and_adds(tmp_path):
    package = tmp_path / "mcp-everything.wfp"
    package.write_bytes(build(PROJECT, frozen=True))
    with zipfile.ZipFile(package) as archive:
        archive.extractall(tmp_path / "tree")
    with PluginHarness(tmp_path / "tree") as server:
        assert {"echo", "get-sum"} <= {tool["name"] for tool in server.functions()}
        assert "42" in str(server.call_now("get-sum", a=40, b=2))
