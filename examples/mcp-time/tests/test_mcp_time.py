"""Builds the package, with the server from PyPI in it, and calls the server where the sandbox would."""

import zipfile
from pathlib import Path

import pytest

from wirthforge_sdk.packaging.build import build
from wirthforge_sdk.testing import PluginHarness

PROJECT = Path(__file__).parents[1]


@pytest.mark.e2e  # the build takes the server from the package index
@pytest.mark.timeout(180)
def test_the_unmodified_server_tells_the_time_of_a_zone(tmp_path):
    package = tmp_path / "mcp-time.wfp"
    package.write_bytes(build(PROJECT, frozen=True))
    with zipfile.ZipFile(package) as archive:
        archive.extractall(tmp_path / "tree")
    with PluginHarness(tmp_path / "tree") as server:
        assert {tool["name"] for tool in server.functions()} == {"get_current_time", "convert_time"}
        told = server.call_now("get_current_time", timezone="Asia/Tokyo")
        assert told["datetime"].endswith("+09:00")
        later = server.call_now(
            "convert_time", source_timezone="UTC", time="12:30", target_timezone="Asia/Tokyo"
        )
        assert later["time_difference"] == "+9.0h"
