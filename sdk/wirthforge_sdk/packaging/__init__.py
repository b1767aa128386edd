"""The package file, ``.wfp``: one code for author, marketplace and host.

``archive`` is the container format, ``envelope`` and ``keys`` the signature, ``verification`` the rules and
their order, ``extraction`` the way to disk; ``project``, ``vendoring`` and ``build`` are the author's side.
The format is written down in ``docs/package.md``.
"""
