"""The command line; `main` is the command `restore-rwkv`."""

__all__ = ["main"]


def main() -> None:
    """Run the command line on the words of `sys.argv`, and end the process with an exit code.

    Everything is imported inside, so that Ctrl-C is one line from the first moment on.
    """
    from restore_rwkv.apps.cli.stopping import Stopping

    with Stopping():
        from restore_rwkv.apps.cli.app import run

        run()
