"""The tables of both services keep what both databases need."""

import importlib
import pkgutil

import pytest

import wirthforge_host
import wirthforge_marketplace
from wirthforge_sdk.serving.database import UtcDateTime


def columns_of(service):
    """The columns of all of its stores."""
    for module in pkgutil.walk_packages(service.__path__, f"{service.__name__}."):
        if module.name.endswith(".store"):
            importlib.import_module(module.name)
    metadata = importlib.import_module(f"{service.__name__}.database").metadata
    return [column for table in metadata.tables.values() for column in table.columns]


@pytest.mark.parametrize("service", [wirthforge_host, wirthforge_marketplace])
def test_every_time_in_the_tables_has_a_zone(service):
    columns = columns_of(service)
    plain = [str(column) for column in columns if "DATE" in str(column.type).upper()]
    aware = [str(column) for column in columns if isinstance(column.type, UtcDateTime)]
    assert plain == aware != []
