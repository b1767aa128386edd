"""The command ``wirthforge``: for authors, operators and keepers.

One module for each group of commands. A command is a function that returns an
:class:`~wirthforge_sdk.cli.output.Answer`; what is printed, as what, and with which exit code, is decided in
:mod:`~wirthforge_sdk.cli.output` alone. Modules import what is heavy inside their functions, so that
``wirthforge --help`` answers at once.
"""
