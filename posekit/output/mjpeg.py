"""The newest image in a browser: MJPEG, served from this machine."""

from __future__ import annotations

import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

import cv2

from posekit.errors import SourceError
from posekit.types import UInt8

_PAGE = b"""<!doctype html><html lang="en"><meta charset="utf-8"><title>posekit</title>
<meta name="viewport" content="width=device-width,initial-scale=1"><link rel="icon" href="data:,">
<style>body{margin:0;background:#111}img{width:100vw;height:100vh;object-fit:contain}</style>
<img src="/stream.mjpg" alt="the newest image"></html>
"""
_BOUNDARY = "posekit-image"
_QUALITY = (cv2.IMWRITE_JPEG_QUALITY, 80)  # a preview, not a record
_STALLED_S = 10.0  # a viewer that takes nothing for so long is disconnected
_WAKE_S = 1.0


class _Newest:
    """The newest image; encoded as JPEG at most once, and only for a viewer."""

    def __init__(self) -> None:
        self._state = threading.Condition()
        self._encoding = threading.Lock()
        self._image: UInt8 | None = None
        self._version = 0
        self._jpeg = (0, b"")
        self.closed = False

    def push(self, image: UInt8) -> None:
        with self._state:
            self._image, self._version = image, self._version + 1
            self._state.notify_all()

    def close(self) -> None:
        with self._state:
            self.closed = True
            self._state.notify_all()

    def after(self, version: int) -> tuple[int, bytes] | None:
        """(version, JPEG) of an image newer than `version`, waiting for it; None when closed."""
        with self._state:
            while self._version <= version and not self.closed:
                self._state.wait(_WAKE_S)
            newest, image = self._version, self._image
        if self.closed or image is None:
            return None
        with self._encoding:
            if self._jpeg[0] < newest:
                bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
                self._jpeg = (newest, cv2.imencode(".jpg", bgr, _QUALITY)[1].tobytes())
            return self._jpeg


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = _STALLED_S

    def do_GET(self) -> None:
        """Send the page or the stream; other names and other hosts get an error."""
        if not self._is_addressed_to_us():
            self.send_error(403, "this name is not served here")
        elif self.path == "/":
            self._send_page()
        elif self.path.partition("?")[0] == "/stream.mjpg":
            self._send_stream()
        else:
            self.send_error(404)

    def _is_addressed_to_us(self) -> bool:
        """False where another site's name was pointed at this machine (DNS rebinding)."""
        host = self.headers.get("Host", "").rpartition(":")[0].strip("[]").lower()
        local = self.server.server_address[0] in ("127.0.0.1", "::1")
        return not local or host in ("127.0.0.1", "localhost", "::1")

    def _send_page(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(_PAGE)))
        self.end_headers()
        self.wfile.write(_PAGE)

    def _send_stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", f"multipart/x-mixed-replace; boundary={_BOUNDARY}")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        version = 0
        while (newest := self.server.newest.after(version)) is not None:
            version, jpeg = newest
            head = (
                f"--{_BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
            )
            self.wfile.write(head.encode() + jpeg + b"\r\n")

    def handle(self) -> None:
        """One viewer; a disconnection is not an error."""
        try:
            super().handle()
        except OSError:  # gone, or stalled
            self.close_connection = True

    def setup(self) -> None:
        """Let `close` end this connection too."""
        self.server.viewers.add(self.request)
        super().setup()

    def finish(self) -> None:
        """The connection ends."""
        self.server.viewers.discard(self.request)
        super().finish()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base's name
        """Nothing: the terminal belongs to the job."""


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # so that closing waits for the viewers' threads

    def __init__(self, address: tuple[str, int]) -> None:
        self.newest = _Newest()
        self.viewers: set[socket.socket] = set()
        super().__init__(address, _Handler)


class MjpegServer:
    """Shows pushed images at `url` until it is closed; port 0 takes a free one.

    Only this machine can connect unless `host` says otherwise. Raises SourceError where the port is
    taken.
    """

    def __init__(self, port: int = 0, host: str = "127.0.0.1") -> None:
        try:
            self._server = _Server((host, port))
        except OSError as error:
            raise SourceError(
                f"http://{host}:{port}: cannot be served ({error.strerror or error}); "
                "choose another port"
            ) from error
        self.url = f"http://{host}:{self._server.server_address[1]}/"
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.1,), name="show", daemon=True
        )
        self._thread.start()

    def push(self, image: UInt8) -> None:
        """Show uint8 (H, W, 3) RGB; never waits, and viewers may skip images.

        The array is read later: do not change it.
        """
        self._server.newest.push(image)

    def close(self) -> None:
        """Disconnect all viewers and free the port. Safe to call twice."""
        self._server.newest.close()
        self._server.shutdown()
        self._thread.join()
        for viewer in list(self._server.viewers):
            try:
                viewer.shutdown(socket.SHUT_RDWR)
            except OSError:  # it has disconnected by itself
                continue
        self._server.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.close()
