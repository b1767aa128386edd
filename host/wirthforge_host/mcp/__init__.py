"""The host as an MCP server: every function that a token may call is a tool. HTTP is ``api/mcp.py``.

``names`` and ``catalogue`` say what there is, ``approvals`` who says yes, ``tools`` calls, ``protocol`` speaks, and
``streams`` and ``sessions`` hold what clients before 2026-07-28 expect a server to remember.
"""
