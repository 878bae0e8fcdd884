"""Applications: the command line.

Uses every other room, imported when a command needs it; nothing imports apps.
"""

__all__ = ["cli"]
