"""HTTP/2 frame by frame: requests are written by `h2`, answers are taken apart here."""

import socket

import h2.config
import h2.connection
import hpack
import hyperframe.frame

from conftest import PATIENCE


class Frames:
    """A connection to a server, without TLS and with prior knowledge."""

    def __init__(self, server):
        host, port = server.address.split(":")
        self.server = server
        self.socket = socket.create_connection((host, int(port)), timeout=PATIENCE)
        config = h2.config.H2Configuration(client_side=True, header_encoding="utf-8")
        self.connection = h2.connection.H2Connection(config)
        self.connection.initiate_connection()
        self.decoder = hpack.Decoder()
        self.flush()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def flush(self):
        self.socket.sendall(self.connection.data_to_send())

    def request(
        self, path: str, headers: dict, body: bytes = b"", method: str = "POST", finished: bool = True
    ) -> int:
        """Sends a request in one piece, so that the server knows at once whether it is finished."""
        stream = self.connection.get_next_available_stream_id()
        pseudo = {":method": method, ":scheme": "http", ":authority": self.server.address, ":path": path}
        fields = list((pseudo | headers).items())
        self.connection.send_headers(stream, fields, end_stream=finished and not body)
        if body:
            self.connection.send_data(stream, body, end_stream=finished)
        self.flush()
        return stream

    def exactly(self, length: int) -> bytes:
        data = b""
        while len(data) < length:
            more = self.socket.recv(length - len(data))
            assert more, "the connection ended"
            data += more
        return data

    def read(self) -> hyperframe.frame.Frame:
        """The next frame. Header blocks are decoded into its `fields`, in their order."""
        head = self.exactly(9)
        frame, length = hyperframe.frame.Frame.parse_frame_header(memoryview(head))
        frame.parse_body(memoryview(self.exactly(length)))
        if isinstance(frame, hyperframe.frame.HeadersFrame):
            assert "END_HEADERS" in frame.flags
            frame.fields = [(str(name), str(value)) for name, value in self.decoder.decode(frame.data)]
        return frame

    def read_stream(self, stream: int, until) -> list[hyperframe.frame.Frame]:
        """The frames of one stream up to the first for which `until` holds; then those of a ping's round
        trip, so that nothing that follows at once is missed."""
        frames = []
        while not frames or not until(frames[-1]):
            frame = self.read()
            if frame.stream_id == stream:
                frames.append(frame)
        self.connection.ping(b"are we ?")
        self.flush()
        while True:
            frame = self.read()
            if isinstance(frame, hyperframe.frame.PingFrame) and "ACK" in frame.flags:
                return frames
            if frame.stream_id == stream:
                frames.append(frame)


def ends_stream(frame) -> bool:
    return "END_STREAM" in frame.flags
