"""What author, marketplace, host and plugin agree on. They parse and verify with this same code.

Import the module you need; this package re-exports nothing, so that the plugin runtime can use
:mod:`wirthforge_sdk.contracts.bridge` without pulling in pydantic.
"""
