"""Refusals on HTTP/2, frame by frame."""

from hyperframe.frame import DataFrame, HeadersFrame, RstStreamFrame

from frames import Frames, ends_stream

NO_ERROR = 0


def test_a_refused_upload_is_answered_and_then_stopped_without_an_error(spent_http_server):
    server = spent_http_server
    with Frames(server) as connection:
        stream = connection.request(server.limited.path, server.headers, b"x" * 1000, finished=False)
        frames = connection.read_stream(stream, ends_stream)
        assert [type(frame) for frame in frames] == [HeadersFrame, DataFrame, RstStreamFrame]
        assert dict(frames[0].fields)[":status"] == "429"
        assert frames[2].error_code == NO_ERROR

        stream = connection.request("/health", {}, method="GET")
        frames = connection.read_stream(stream, ends_stream)
        assert dict(frames[0].fields)[":status"] == "200", "the connection goes on"


def test_the_answer_to_a_head_is_one_frame_refused_or_not(fresh_http_server):
    with Frames(fresh_http_server) as connection:
        for _ in range(500):
            stream = connection.request("/v1/models", fresh_http_server.headers, method="HEAD")
            frames = connection.read_stream(stream, ends_stream)
            assert [type(frame) for frame in frames] == [HeadersFrame]
            assert ends_stream(frames[0])
            if dict(frames[0].fields)[":status"] == "429":
                return
    raise AssertionError("500 requests were not refused")


def test_the_names_of_fields_are_lower_case_and_come_once(spent_http_server):
    server = spent_http_server
    with Frames(server) as connection:
        stream = connection.request(server.limited.path, server.headers, server.limited.json)
        [head, body] = connection.read_stream(stream, ends_stream)
        names = [name for name, _ in head.fields]
        assert names[0] == ":status"
        assert names == [name.lower() for name in names]
        assert len(set(names)) == len(names)
        assert dict(head.fields)["content-length"] == str(len(body.data))
