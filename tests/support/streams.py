"""Local servers for tests: an RTSP camera, an endless HTTP stream, files with ranges."""

import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import av

from tests.support.clips import numbered

RATE = 25
_SDP = (
    "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=test\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
    "m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=fmtp:96 packetization-mode=1\r\n"
    "a=control:track0\r\n"
)


def h264_images(start: int = 0) -> Iterator[bytes]:
    """Endless H.264 access units (Annex B) of numbered images, each one a key frame."""
    encoder: Any = av.CodecContext.create("libx264", "w")
    encoder.width, encoder.height, encoder.pix_fmt = 160, 96, "yuv420p"
    encoder.time_base = Fraction(1, RATE)
    encoder.options = {"preset": "ultrafast", "tune": "zerolatency", "g": "1"}
    number = start
    while True:
        frame = av.VideoFrame.from_ndarray(numbered(number % 1024), format="rgb24")
        frame.pts = number
        for packet in encoder.encode(frame):
            yield bytes(packet)
        number += 1


def _rtp_packets(unit: bytes, sequence: int, stamp: int) -> list[bytes]:
    """RFC 6184: an access unit as single NAL units and FU-A fragments."""
    nals = [nal for nal in re.split(b"\x00\x00\x00?\x01", unit) if nal]
    payloads = []
    for nal in nals:
        if len(nal) <= 1200:
            payloads.append(nal)
            continue
        pieces = [nal[i : i + 1200] for i in range(1, len(nal), 1200)]
        for i, piece in enumerate(pieces):
            flags = (i == 0) << 7 | (i == len(pieces) - 1) << 6
            payloads.append(bytes([nal[0] & 0xE0 | 28, flags | nal[0] & 0x1F]) + piece)
    last = len(payloads) - 1
    return [
        struct.pack("!BBHII", 0x80, (i == last) << 7 | 96, (sequence + i) & 0xFFFF, stamp, 7) + data
        for i, data in enumerate(payloads)
    ]


class RtspCamera:
    """Serves numbered images over RTSP with RTP in the same connection (TCP).

    cut_after: images until the connection is cut, one number per connection; the last number
    stands for all later ones; None never cuts. `connections` counts those that played.
    """

    def __init__(self, *cut_after: int | None, rate: float = RATE) -> None:
        self.cut_after, self.rate, self.connections = cut_after or (None,), rate, 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets = [self._listener]
        self._threads: list[threading.Thread] = []
        self.url = f"rtsp://127.0.0.1:{self._listener.getsockname()[1]}/cam"
        self._start(self._accept)

    def _start(self, target: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True, name="camera")
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:  # closed
                return
            self._sockets.append(peer)
            self._start(self._serve, peer)

    def _serve(self, peer: socket.socket) -> None:
        try:
            with peer, peer.makefile("rb") as requests:
                while True:
                    method, headers = _request(requests)
                    peer.sendall(_response(method, headers))
                    if method == "PLAY":
                        self._play(peer)
                        return
        except (OSError, ValueError):  # the reader has left
            return

    def _play(self, peer: socket.socket) -> None:
        limit = self.cut_after[min(self.connections, len(self.cut_after) - 1)]
        self.connections += 1
        sequence, began = 0, time.monotonic()
        for number, unit in enumerate(h264_images()):
            if number == limit:
                peer.shutdown(socket.SHUT_RDWR)
                return
            for packet in _rtp_packets(unit, sequence, number * 90_000 // RATE):
                peer.sendall(b"$\x00" + struct.pack("!H", len(packet)) + packet)
                sequence += 1
            time.sleep(max(0.0, began + (number + 1) / self.rate - time.monotonic()))

    def __enter__(self) -> "RtspCamera":
        return self

    def __exit__(self, *_: object) -> None:
        for each in self._sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        for thread in self._threads:
            thread.join(5)


def _request(requests: Any) -> tuple[str, dict[str, str]]:
    method = requests.readline().decode().split()[:1]
    if not method:
        raise ValueError("the reader has left")
    headers = {}
    while line := requests.readline().decode().strip():
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    return method[0], headers


def _response(method: str, headers: dict[str, str]) -> bytes:
    lines = ["RTSP/1.0 200 OK", f"CSeq: {headers.get('cseq', 0)}"]
    body = ""
    match method:
        case "OPTIONS":
            lines.append("Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN")
        case "DESCRIBE":
            body = _SDP
            lines += ["Content-Type: application/sdp", f"Content-Length: {len(body)}"]
        case "SETUP":
            lines += ["Transport: RTP/AVP/TCP;unicast;interleaved=0-1", "Session: 1"]
        case _:
            lines.append("Session: 1")
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()


@contextmanager
def http_server(respond: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[str]:
    """A server on 127.0.0.1 that calls `respond` for every GET; gives its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            try:
                respond(self)
            except OSError:  # the reader has left
                self.close_connection = True

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), name="http")
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def send_file(handler: BaseHTTPRequestHandler, path: Path) -> None:
    """Send a file, or the part that the Range header requests."""
    data = path.read_bytes()
    start = 0
    if match := re.match(r"bytes=(\d+)-", handler.headers.get("Range", "")):
        start = int(match[1])
        handler.send_response(206)
        handler.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
    else:
        handler.send_response(200)
    handler.send_header("Accept-Ranges", "bytes")
    handler.send_header("Content-Length", str(len(data) - start))
    handler.end_headers()
    handler.wfile.write(data[start:])


def send_transport_stream(
    handler: BaseHTTPRequestHandler, count: int | None, rate: float = RATE
) -> None:
    """Send a live MPEG-TS of numbered images, cut after `count`; None: endless."""
    handler.send_response(200)
    handler.send_header("Content-Type", "video/mp2t")
    handler.end_headers()
    options = {"flush_packets": "1"}
    out = av.open(_Sink(handler.wfile), "w", format="mpegts", options=options)  # type: ignore[call-overload]
    stream: Any = out.add_stream("libx264", rate=RATE)
    stream.width, stream.height, stream.pix_fmt = 160, 96, "yuv420p"
    stream.options = {"preset": "ultrafast", "tune": "zerolatency", "g": "1"}
    began, number = time.monotonic(), 0
    try:
        while count is None or number < count:
            frame = av.VideoFrame.from_ndarray(numbered(number % 1024), format="rgb24")
            frame.pts = number
            out.mux(stream.encode(frame))
            number += 1
            time.sleep(max(0.0, began + number / rate - time.monotonic()))
    finally:
        handler.close_connection = True


class _Sink:
    """What PyAV writes to: a socket that cannot seek."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def write(self, data: bytes) -> int:
        self._file.write(data)
        return len(data)
