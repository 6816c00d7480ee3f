"""An object store on loopback, spoken to over real HTTP, and archives of small studies in it."""

from __future__ import annotations

import io
import os
import random
import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BUCKET = "bucket"


def studies(usual: int) -> int:
    """Return how many studies a test that kills makes: few in CI, `JCS_ARCHIVE_STUDIES` before a change lands."""
    return int(os.environ.get("JCS_ARCHIVE_STUDIES", usual))


def blows(count: int, first: int) -> list[int]:
    """Return after how many of `count` studies to kill: once in CI, after `first`; at random for every fifty more."""
    return [first, *sorted(random.Random(count).sample(range(first + 1, max(first + 2, count)), count // 50))]


def png(seed: int) -> bytes:
    """Return a small picture."""
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (48, 48), dtype=np.uint8)).save(file, "png")
    return file.getvalue()


def write_study(folder: Path, seed: int, slices: int = 3) -> None:
    """Write a study of pictures."""
    folder.mkdir(parents=True)
    for i in range(slices):
        (folder / f"{i}.png").write_bytes(png(1000 * seed + i))


@contextmanager
def s3_server() -> Iterator[str]:
    """Run a store with one empty bucket; yield its endpoint."""
    server: Any = pytest.importorskip("moto.server", reason="needs moto")
    boto3: Any = pytest.importorskip("boto3", reason="needs boto3")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    running.start()
    try:
        endpoint = f"http://127.0.0.1:{port}"
        client(boto3, endpoint).create_bucket(Bucket=BUCKET)
        yield endpoint
    finally:
        running.stop()


def client(boto3: Any, endpoint: str) -> Any:
    """Return a client that is none of ours."""
    given = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing", "region_name": "us-east-1"}
    return boto3.client("s3", endpoint_url=endpoint, **given)


class Store:
    """The bucket, seen from beside the program."""

    def __init__(self, endpoint: str) -> None:
        import boto3

        self.client = client(boto3, endpoint)

    def put(self, key: str, content: bytes) -> None:
        """Write an object."""
        self.client.put_object(Bucket=BUCKET, Key=key, Body=content)

    def get(self, key: str) -> bytes:
        """Return what an object holds."""
        content: bytes = self.client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        return content

    def remove(self, key: str) -> None:
        """Remove an object."""
        self.client.delete_object(Bucket=BUCKET, Key=key)

    def keys(self, prefix: str = "") -> list[str]:
        """Return the names of objects."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        return [one["Key"] for page in pages for one in page.get("Contents", ())]

    def put_studies(self, count: int, prefix: str = "in", slices: int = 3) -> None:
        """Write studies of pictures: `in/p0/chest/0.png` …; one a slice longer than the other."""
        for i in range(count):
            for k in range(slices + i % 2):
                self.put(f"{prefix}/p{i}/chest/{k}.png", png(100 * i + k))
