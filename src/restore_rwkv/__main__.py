"""`python -m restore_rwkv` is the command `restore-rwkv`."""

from restore_rwkv.apps.cli import main

if __name__ == "__main__":
    main()
