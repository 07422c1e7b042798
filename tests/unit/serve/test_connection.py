"""HTTP as clients may speak it, well or badly, over real sockets; what answers is a stand-in."""

import asyncio
import contextlib
import json
import time

import pytest

from servegraph.errors import RequestError
from servegraph.serve.connection import Connection
from servegraph.serve.edge import ConnectionLimits, Edge
from servegraph.serve.http import Response, error_response

LIMITS = ConnectionLimits(
    max_body_bytes=1000,
    header_bytes=2000,
    drained_bytes=100_000,
    header_timeout_s=0.3,
    body_timeout_s=0.4,
    write_timeout_s=0.4,
    idle_timeout_s=0.6,
)


class Echo:
    """Says what it was asked; `/slow` after a while, `/big` with ten megabytes."""

    def __init__(self):
        self.asked = 0

    def handle(self, request, respond):
        self.asked += 1
        text = f"{request.method.decode()} {request.target.decode()} {len(request.body)}"
        response = Response(200, json.dumps(text).encode())
        if request.target.startswith(b"/hold"):  # as for what a body holds once it is inflated
            try:
                request.hold(1400)
            except RequestError as exc:
                response = error_response(exc)
        if request.target.endswith(b"/slow"):
            asyncio.get_running_loop().call_later(0.2, respond, response)
        elif request.target == b"/big":
            respond(Response(200, b"x" * 10_000_000))
        else:
            respond(response)


def serving(client, limits=LIMITS):
    """Run `client(connect, edge)` against a server and return what it returns; nothing may be held afterwards."""

    async def run():
        edge = Edge(Echo(), limits)
        edge.start()
        server = await asyncio.get_running_loop().create_server(lambda: Connection(edge), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        writers = []

        async def connect():
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writers.append(writer)
            return reader, writer

        async with server:
            found = await client(connect, edge)
            server.close()
            for writer in writers:
                writer.transport.abort()
            await edge.drain(2)
            await asyncio.sleep(0.01)
        assert edge.buffered_bytes == 0
        assert not edge.connections
        return found

    return asyncio.run(run())


def exchange(*parts, limits=LIMITS, pause_s=0.0):
    """Send the parts, return all that comes until the server closes or a second passes."""

    async def client(connect, edge):
        reader, writer = await connect()
        for part in parts:
            writer.write(part)
            with contextlib.suppress(ConnectionError):
                await writer.drain()
            await asyncio.sleep(pause_s)
        found = b""
        with contextlib.suppress(asyncio.TimeoutError, ConnectionError):
            while chunk := await asyncio.wait_for(reader.read(1 << 20), 1):
                found += chunk
                if pause_s == 0.0 and found.count(b"HTTP/1.1 200") >= sum(part.count(b"HTTP/1") for part in parts):
                    break
        return found

    return serving(client, limits)


def post(target=b"/x", body=b"{}", headers=b""):
    return b"POST %b HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n%b\r\n%b" % (target, len(body), headers, body)


def statuses(found):
    return [int(part[:3]) for part in found.split(b"HTTP/1.1 ")[1:]]


def test_a_request_in_pieces():
    whole = post(body=b"0123456789")
    found = exchange(*(whole[index : index + 7] for index in range(0, len(whole), 7)))
    assert statuses(found) == [200]
    assert b'"POST /x 10"' in found
    assert b"\r\ndate: " in found


def test_chunked_bodies():
    found = exchange(
        b"POST /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    )
    assert b'"POST /x 5"' in found


def test_pipelined_requests_are_answered_in_their_order():
    found = exchange(post(b"/slow") + post(b"/two") + post(b"/three") * 20)
    assert statuses(found) == [200] * 22
    assert found.index(b"/slow") < found.index(b"/two") < found.index(b"/three")


@pytest.mark.parametrize(
    ("request_", "closes"),
    [
        (b"GET / HTTP/1.0\r\n\r\n", True),
        (b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", False),
        (b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", True),
        (b"GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\n", False),
        (b"CONNECT h:1 HTTP/1.1\r\nHost: h\r\n\r\n", True),
    ],
)
def test_connections_close_when_asked_to(request_, closes):
    async def client(connect, edge):
        reader, writer = await connect()
        writer.write(request_)
        await reader.readuntil(b'0"')
        rest = asyncio.create_task(reader.read())
        done, _ = await asyncio.wait([rest], timeout=0.2)
        rest.cancel()
        return bool(done)

    assert serving(client) == closes


def test_head_has_no_body():
    found = exchange(b"HEAD /x HTTP/1.1\r\nHost: h\r\n\r\n")
    assert b"content-length: 11\r\n" in found
    assert found.endswith(b"\r\n\r\n")


def test_a_client_that_has_finished_sending_is_still_answered():
    async def client(connect, edge):
        reader, writer = await connect()
        writer.write(post(b"/slow"))
        writer.write_eof()
        return await asyncio.wait_for(reader.read(), 2)

    assert b'"POST /slow 2"' in serving(client)


def test_expect_continue():
    found = exchange(post(headers=b"Expect: 100-continue\r\n"))
    assert found.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200")
    refused = b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 5000\r\nExpect: 100-continue\r\n\r\n"
    # Without its body, and after the answers that are due; a client that sends the body after all is not parsed.
    assert statuses(exchange(refused)) == [413]
    assert statuses(exchange(post(b"/slow") + refused)) == [200, 413]
    old = b"POST /x HTTP/1.0\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\nx"
    assert statuses(exchange(old)) == [200]
    assert statuses(exchange(refused + b"x" * 5000 + post())) == [413]


def test_of_transfer_codings_only_chunked_is_understood():
    head = b"POST /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: %b\r\n\r\n"
    body = b"1\r\nx\r\n0\r\n\r\n"
    assert statuses(exchange(head % b"gzip, chunked" + body + post())) == [501, 200]
    assert statuses(exchange(head % b"Chunked" + body)) == [200]


UPGRADE = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"


def test_a_wish_for_another_protocol_is_passed_over():
    """As Java's client asks: its body is read, and the connection goes on."""
    asked = post(b"/java", b"0123456789", UPGRADE)
    found = exchange(asked, post(b"/next"))
    assert statuses(found) == [200, 200]
    assert b"/java 10" in found
    assert b"/next 2" in found
    in_pieces = exchange(*(asked[index : index + 9] for index in range(0, len(asked), 9)), post(b"/next"))
    assert b"/java 10" in in_pieces
    chunked = b"POST /x HTTP/1.1\r\nHost: h\r\n%bTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n" % UPGRADE
    assert b"/x 3" in exchange(chunked)
    many = exchange(b"GET /x HTTP/1.1\r\nHost: h\r\n%b\r\n" % UPGRADE * 500, post(b"/last"))
    assert statuses(many) == [200] * 501
    too_large = post(body=b"x" * 5000, headers=UPGRADE)
    assert statuses(exchange(too_large, post())) == [413, 200]
    assert statuses(exchange(post(headers=UPGRADE + b"X: %b\r\n" % (b"y" * 3000)), pause_s=0.05)) == [431]


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_above_the_limit_is_read_dropped_and_answered(chunked):
    body = b"x" * 50_000
    large = post(body=body)
    if chunked:
        large = b"POST /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (
            len(body),
            body,
        )
    found = exchange(large, post())
    assert statuses(found) == [413, 200]


def test_a_body_far_above_the_limit_closes_the_connection():
    found = exchange(post(body=b"x" * 300_000), pause_s=0.05)
    assert statuses(found) in ([413], [])


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"NONSENSE\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00", 400),  # TLS
        (b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: x\r\n\r\n", 400),
        (b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: h\r\nX: " + b"x" * 3000 + b"\r\n\r\n", 431),
        (b"GET /" + b"x" * 3000, 431),
        (b"GET /" + b"x" * 3000 + b" HTTP/1.1\r\nHost: h\r\n\r\n", 431),
    ],
)
def test_what_is_no_request_is_refused_and_the_connection_closed(sent, status):
    assert statuses(exchange(sent, pause_s=0.05)) == [status]


def test_slow_and_silent_clients_are_let_go_and_hold_up_nobody():
    async def client(connect, edge):
        slow = [await connect() for _ in range(3)]
        for (_, writer), begun in zip(
            slow, (b"", b"POST /x HTTP/1.1\r\nHo", b"POST /x HTTP/1.1\r\nContent-Length: 9\r\n\r\nab"), strict=True
        ):
            writer.write(begun)
        _, stuck = await connect()
        stuck.write(post(b"/big"))  # and never reads
        started_s = time.monotonic()
        reader, writer = await connect()
        for _ in range(20):
            writer.write(post())
            await reader.readuntil(b'2"')
        quick_s = time.monotonic() - started_s
        found = [await asyncio.wait_for(reader.read(), 5) for reader, _ in slow]
        while stuck.get_extra_info("socket").fileno() != -1 and len(edge.connections) > 1:
            await asyncio.sleep(0.05)
            assert time.monotonic() - started_s < 6
        return quick_s, [statuses(part) for part in found]

    quick_s, found = serving(client)
    assert quick_s < 1
    assert found == [[], [408], [408]]


def test_more_clients_than_allowed_are_told_so():
    async def client(connect, edge):
        connections = [await connect() for _ in range(3)]
        return await asyncio.wait_for(connections[-1][0].read(), 2)

    found = serving(client, ConnectionLimits(max_body_bytes=10, connections=2))
    assert statuses(found) == [503]
    assert b"retry-after: 1\r\n" in found


def test_all_bodies_together_have_a_limit():
    limits = ConnectionLimits(max_body_bytes=1000, buffered_bytes=1500)

    async def client(connect, edge):
        first = await connect()
        first[1].write(post(b"/slow", b"x" * 1000))
        await asyncio.sleep(0.05)
        second = await connect()
        second[1].write(post(body=b"x" * 900) + post(body=b"x" * 100))
        answers = await asyncio.wait_for(second[0].readuntil(b'100"'), 2)
        await first[0].readuntil(b'1000"')
        return answers

    assert statuses(serving(client, limits)) == [503, 200]


def test_what_bodies_hold_once_they_are_inflated_counts_as_well():
    limits = ConnectionLimits(max_body_bytes=1000, buffered_bytes=1500)

    async def client(connect, edge):
        first, second = await connect(), await connect()
        first[1].write(post(b"/hold/slow", b"x"))
        await asyncio.sleep(0.05)
        second[1].write(post(body=b"x" * 200) + post(b"/hold", b"x") + post(body=b"x" * 50))
        answers = await asyncio.wait_for(second[0].readuntil(b'50"'), 2)
        await first[0].readuntil(b'1"')
        return answers

    assert statuses(serving(client, limits)) == [503, 503, 200]


def test_what_is_not_answered_in_time_when_it_stops_is_told_so():
    async def client(connect, edge):
        reader, writer = await connect()
        writer.write(post(b"/slow"))
        await asyncio.sleep(0.05)
        await edge.drain(0.05)
        found = await reader.read()
        await asyncio.sleep(0.2)  # the answer comes after all, and goes nowhere
        return found

    found = serving(client)
    assert statuses(found) == [503]
    assert b"retry-after: 1" in found
    assert b"connection: close" in found


def test_draining_answers_what_has_begun_and_closes_the_rest():
    async def client(connect, edge):
        idle_reader, _ = await connect()
        reader, writer = await connect()
        writer.write(post(b"/slow"))
        await asyncio.sleep(0.05)
        await edge.drain(5)
        answer = await reader.read()
        assert await idle_reader.read() == b""
        return answer

    found = serving(client)
    assert b'"POST /slow 2"' in found
    assert b"connection: close\r\n" in found
