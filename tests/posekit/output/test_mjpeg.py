"""The image in a browser: the newest, for every viewer, without waiting."""

import http.client
import socket
import threading
import time
from urllib.parse import urlsplit
from urllib.request import urlopen

import cv2
import numpy as np
import pytest

from posekit.errors import SourceError
from posekit.output.mjpeg import MjpegServer
from tests.support.clips import number_of, numbered


def image_from(stream: http.client.HTTPResponse) -> np.ndarray:
    """The next JPEG of a multipart stream, RGB."""
    length = 0
    while (line := stream.readline().strip()) or not length:
        if line.lower().startswith(b"content-length:"):
            length = int(line.split(b":")[1])
    bgr = cv2.imdecode(np.frombuffer(stream.read(length), np.uint8), cv2.IMREAD_COLOR)
    stream.readline()
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)


def test_the_page_shows_the_stream_and_the_stream_the_newest_image() -> None:
    with MjpegServer() as server:
        with urlopen(server.url, timeout=5) as page:
            assert b"/stream.mjpg" in page.read()
        for i in range(5):
            server.push(numbered(i))
        with urlopen(f"{server.url}stream.mjpg", timeout=5) as stream:
            assert "multipart/x-mixed-replace" in stream.headers["Content-Type"]
            assert number_of(image_from(stream)) == 4
            server.push(numbered(300))
            assert number_of(image_from(stream)) == 300


def test_colors_are_not_swapped() -> None:
    with MjpegServer() as server:
        server.push(np.full((32, 32, 3), (220, 30, 60), np.uint8))
        with urlopen(f"{server.url}stream.mjpg", timeout=5) as stream:
            np.testing.assert_allclose(image_from(stream)[16, 16], (220, 30, 60), atol=6)


def test_pushing_costs_next_to_nothing_without_or_with_a_stalled_watcher() -> None:
    image = np.random.default_rng(0).integers(0, 255, (720, 1280, 3), np.uint8)
    with MjpegServer() as server:
        parts = urlsplit(server.url)
        stalled = socket.create_connection((parts.hostname, parts.port))
        stalled.sendall(b"GET /stream.mjpg HTTP/1.0\r\nHost: 127.0.0.1:1\r\n\r\n")
        slowest = 0.0
        for _ in range(50):
            began = time.thread_time()
            server.push(image)
            slowest = max(slowest, time.thread_time() - began)
        # one JPEG of this size takes more than 5 ms of this thread's time, a push microseconds
        assert slowest < 2e-3
        stalled.close()


def test_closing_lets_everyone_go() -> None:
    before = threading.active_count()
    server = MjpegServer()
    parts = urlsplit(server.url)
    idle = socket.create_connection((parts.hostname, parts.port))
    server.push(numbered(1))
    stream = urlopen(f"{server.url}stream.mjpg", timeout=5)
    image_from(stream)
    began = time.monotonic()
    server.close()
    server.close()
    assert time.monotonic() - began < 3
    assert threading.active_count() == before
    stream.close()
    idle.close()
    with pytest.raises(OSError, match="refused"):
        urlopen(server.url, timeout=2)


def test_a_taken_port_and_other_names_are_refused() -> None:
    with MjpegServer() as server:
        port = urlsplit(server.url).port
        with pytest.raises(SourceError, match="choose another port"):
            MjpegServer(port=port)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        connection.request("GET", "/stream.mjpg", headers={"Host": "elsewhere.example:80"})
        assert connection.getresponse().status == 403
        connection.close()
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        connection.request("GET", "/secrets")
        assert connection.getresponse().status == 404
        connection.close()
