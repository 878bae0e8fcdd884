"""What a person or a machine starts: the command line.

Uses every room, each when a command needs it; nothing uses apps.
"""

__all__ = ["cli"]
