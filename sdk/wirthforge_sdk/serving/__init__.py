"""What our two servers share: the form of their errors, their database, their settings.

Needs the extra ``serving``. The command, the clients and the plugin runtime import nothing from here.
"""
