"""An S3 server on this machine."""

from __future__ import annotations

import itertools
import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import s3fs
from moto.server import ThreadedMotoServer

from restore_rwkv.batch import storage

_numbers = itertools.count(1)


class S3:
    """The server, for the length of a `with` block, in which libraries are configured for it.

    Attributes:
        secret: key that must not be shown.
    """

    secret = "a-secret-that-nobody-may-see"

    def __init__(self) -> None:
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self._before = dict(os.environ)

    def __enter__(self) -> S3:
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._server.start()
        host, port = self._server.get_host_and_port()
        self.endpoint = f"http://{host}:{port}"
        self._home = tempfile.TemporaryDirectory()  # without the user's own configuration
        os.environ |= {
            "HOME": self._home.name,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "somebody",
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        self._client: Any = boto3.client("s3")
        _forget()
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()
        self._server.stop()
        self._home.cleanup()
        os.environ.clear()
        os.environ.update(self._before)
        _forget()

    def bucket(self) -> str:
        """Make a bucket, and return its URL."""
        name = f"bucket-{next(_numbers)}"
        self._client.create_bucket(Bucket=name)
        return f"s3://{name}"

    def write(self, url: str, content: bytes) -> None:
        bucket, _, key = url.removeprefix("s3://").partition("/")
        self._client.put_object(Bucket=bucket, Key=key, Body=content)

    def upload(self, path: Path, url: str) -> None:
        """Upload a file, or the files of a folder."""
        if not path.is_dir():
            self.write(url, path.read_bytes())
            return
        for file in sorted(path.rglob("*")):
            if file.is_file():
                self.write(f"{url}/{file.relative_to(path).as_posix()}", file.read_bytes())

    def content(self, url: str, prefix: str = "") -> dict[str, bytes]:
        """All objects of a bucket below a prefix, by their keys."""
        bucket = url.removeprefix("s3://")
        found = self._client.list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", [])
        return {
            item["Key"]: self._client.get_object(Bucket=bucket, Key=item["Key"])["Body"].read()
            for item in found
        }

    @contextmanager
    def elsewhere(self, endpoint: str) -> Iterator[None]:
        """Configure another address within the block."""
        os.environ["AWS_ENDPOINT_URL"] = endpoint
        _forget()
        try:
            yield
        finally:
            os.environ["AWS_ENDPOINT_URL"] = self.endpoint
            _forget()


def _forget() -> None:
    storage._store.cache_clear()
    s3fs.S3FileSystem.clear_instance_cache()
