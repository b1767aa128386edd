"""Bearer tokens of the admin API: who may read, operate and call."""

from wirthforge_host.tokens.service import ALL_SCOPES, Operator, Scope, Token, Tokens

__all__ = ["ALL_SCOPES", "Operator", "Scope", "Token", "Tokens"]
