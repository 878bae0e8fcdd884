"""The command line; `main` is the command `restore-rwkv`."""

from restore_rwkv.apps.cli.app import main

__all__ = ["main"]
