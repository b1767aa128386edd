"""Accounts, their namespaces, and the tokens they act with."""
