"""The attack battery: a hostile plugin and a quiet one, as data, and who has the one attack and judges what came of it.

``hostile`` and ``quiet`` are plugin projects. They are built, signed and published like any other, and run nowhere but
in a sandbox.
"""
