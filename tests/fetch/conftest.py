"""A real, ill-behaved web server on loopback, in a thread of its own."""

from __future__ import annotations

import asyncio
import gzip
import importlib.util
import io
import shutil
import socket
import ssl
import struct
import subprocess
import threading
import time
import zlib
from collections import Counter
from concurrent.futures import Future

import pytest
from aiohttp import web
from PIL import Image


def encoded(image: Image.Image, kind: str = "JPEG", **options) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


GOOD = encoded(Image.effect_mandelbrot((80, 60), (-2, -1.5, 1, 1.5), 40).convert("RGB"))
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\n"


PEER = importlib.util.find_spec("img2dataset") is not None
ENGINES = [
    "native",
    pytest.param("img2dataset", marks=pytest.mark.skipif(not PEER, reason="needs the extra img2dataset")),
]


@pytest.fixture(scope="module", params=ENGINES)
def engine(request) -> str:
    """The same rules hold for both."""
    return request.param


def tiff_of_huge_tiles() -> bytes:
    tags = [(256, 64), (257, 64), (258, 8), (259, 1), (262, 1), (322, 65520), (323, 65520), (324, 8), (325, 64)]
    entries = b"".join(struct.pack("<HHLL", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<LH", 8, len(tags)) + entries + bytes(4096)


def picture(body: bytes, *, status: int = 200, kind: str = "image/jpeg", **headers: str):
    named = {name.replace("_", "-"): value for name, value in headers.items()}

    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=status, body=body, headers={"Content-Type": kind, **named})

    return answer


def redirect(where: str, **headers: str):
    named = {name.replace("_", "-"): value for name, value in headers.items()}

    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": where, **named})

    return answer


async def endless(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "image/jpeg"})
    await response.prepare(request)
    while True:
        await response.write(GOOD * 8)


async def robots_then_silence(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"X-Robots-Tag": "noai", "Content-Length": "1000"})
    await response.prepare(request)
    await asyncio.sleep(30)
    return response


RULES = b"""\
User-agent: *
Disallow: /

User-agent: capfilt
Disallow: /*/secret
Allow: /good
Disallow: /slowly?n=7$
"""


async def robots_txt(request: web.Request) -> web.Response:
    """Another one for each address of this machine."""
    host = request.host.partition(":")[0]
    if host == "127.0.0.3":
        return web.Response(body=RULES)
    if host == "127.0.0.4":
        return web.Response(status=503)
    if host == "127.0.0.5":
        raise web.HTTPFound(str(request.url.with_host("127.0.0.3")))
    if host == "127.0.0.6":
        raise web.HTTPFound("http://10.0.0.1/robots.txt")
    if host == "127.0.0.7":
        return web.Response(body=b"#" * 600_000)
    if host == "127.0.0.8":
        return web.Response(status=403)
    return web.Response(status=404)


class Site:
    """The pages, and what was asked of them."""

    def __init__(self) -> None:
        self.hits: Counter[str] = Counter()
        self.headers: dict[str, dict[str, str]] = {}
        self.log: list[str] = []
        self.peers: list[tuple[str, int]] = []
        self.times: list[tuple[float, str]] = []
        self.busy = self.busiest = 0
        self.port = self.raw_port = self.tls_port = self.deaf_port = 0

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}/{path}"

    def raw(self, name: str) -> str:
        return f"http://127.0.0.1:{self.raw_port}/{name}"

    @web.middleware
    async def watch(self, request: web.Request, handler) -> web.StreamResponse:
        self.hits[request.path] += 1
        self.headers[request.path] = dict(request.headers)
        self.log.append(request.path)
        self.peers.append(request.transport.get_extra_info("peername"))
        self.times.append((time.monotonic(), request.path_qs))
        return await handler(request)

    async def flaky(self, request: web.Request) -> web.Response:
        if self.hits[request.path] < 2:
            return web.Response(status=503, headers={"Retry-After": "0"})
        return web.Response(body=GOOD)

    async def slowly(self, request: web.Request) -> web.Response:
        self.busy += 1
        self.busiest = max(self.busiest, self.busy)
        await asyncio.sleep(float(request.query.get("s", "0.05")))
        self.busy -= 1
        return web.Response(body=GOOD)

    async def busy_now(self, request: web.Request) -> web.Response:
        """Asks everybody to wait for a second, once."""
        if self.hits[request.path] < 2:
            return web.Response(status=429, headers={"Retry-After": "1"})
        return web.Response(body=GOOD)

    async def counted(self, request: web.Request) -> web.Response:
        return web.Response(body=GOOD, headers={"Set-Cookie": "a=b"})


def pages(site: Site) -> dict[str, object]:
    bomb = Image.new("1", (20_000, 20_000))
    small = Image.new("RGB", (20, 300))
    return {
        "good": picture(GOOD),
        "good.html": picture(GOOD, kind="text/html"),
        "counted": site.counted,
        "flaky": site.flaky,
        "busy-now": site.busy_now,
        "robots.txt": robots_txt,
        "a/secret": picture(GOOD),
        "slowly": site.slowly,
        "gzipped": picture(gzip.compress(GOOD), Content_Encoding="gzip"),
        "html": picture(b"<!DOCTYPE html><html><body>sign in</body></html>"),
        "svg": picture(b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', kind="image/svg+xml"),
        "json": picture(b'{"error": "no such picture"}'),
        "empty": picture(b""),
        "avif": picture(b"\0\0\0\x20ftypavif" + bytes(64)),
        "truncated": picture(GOOD[: len(GOOD) // 2]),
        "noise": picture(b"\xff\xd8\xff" + bytes(range(256)) * 8),
        "pixels": picture(encoded(bomb, "PNG"), kind="image/png"),
        "tiles": picture(tiff_of_huge_tiles(), kind="image/tiff"),
        "scans": picture(GOOD[:-2] + b"\xff\xda\0\x02" * 4000 + b"\xff\xd9"),
        "small": picture(encoded(small)),
        "long": picture(encoded(Image.new("RGB", (4000, 40)))),
        "heavy": picture(bytes(300_000)),
        "endless": endless,
        "gzip-bomb": picture(gzip.compress(bytes(40_000_000)), Content_Encoding="gzip"),
        "deflate-bomb": picture(zlib.compress(bytes(20_000_000)), Content_Encoding="deflate"),
        "gzip-damaged": picture(b"\x1f\x8b\x08" + bytes(99), Content_Encoding="gzip"),
        "gzip-cut": picture(gzip.compress(GOOD)[:-20], Content_Encoding="gzip"),
        "brotli": picture(GOOD, Content_Encoding="br"),
        "404": picture(GOOD, status=404),
        "404-noindex": picture(b"", status=404, X_Robots_Tag="noindex"),
        "403": picture(b"", status=403),
        "204": picture(b"", status=204),
        "500": picture(b"", status=500),
        "429-later": picture(b"", status=429, Retry_After="3600"),
        "429-date": picture(b"", status=429, Retry_After="Fri, 31 Dec 2100 23:59:59 GMT"),
        "noai": picture(GOOD, X_Robots_Tag="noai"),
        "noml": picture(GOOD, X_Robots_Tag="index, NoML"),
        "noai-silent": robots_then_silence,
        "otherbot": picture(GOOD, X_Robots_Tag="otherbot: noindex, noai"),
        "ourbot": picture(GOOD, X_Robots_Tag="capfilt: noimageai"),
        "moved": redirect("/good"),
        "moved-noai": redirect("/good", X_Robots_Tag="noai"),
        "loop": redirect("/loop"),
        "to-private": redirect("http://10.0.0.1/"),
        "to-metadata": redirect("http://169.254.169.254/latest/meta-data/"),
        "to-loopback": redirect(f"http://127.0.0.2:{site.port}/good"),
        "to-odd": redirect("http://2130706433/"),
        "to-secret": redirect(f"http://127.0.0.3:{site.port}/a/secret"),
        "to-file": redirect("file:///etc/passwd"),
        "to-nonsense": redirect("http://[::1"),
        "to-nowhere": redirect("http://bad host/a.jpg"),
        "302-bare": picture(b"", status=302),
    }


async def misbehave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers that no HTTP library would send."""
    try:
        name = (await reader.readuntil(b"\r\n\r\n")).split(b" ")[1].decode().strip("/")
        if name == "silent":
            await asyncio.sleep(30)
        elif name == "loris":
            writer.write(HEAD + b"Content-Length: 900\r\n\r\n")
            for byte in GOOD[:900]:
                writer.write(bytes([byte]))
                await asyncio.sleep(0.1)
        elif name == "loris-headers":
            for _ in range(300):
                writer.write(b"HTTP/1.1 200 OK\r\n" if _ == 0 else b"X-%d: y\r\n" % _)
                await asyncio.sleep(0.1)
        elif name == "reset":
            writer.write(HEAD + b"Content-Length: 9000\r\n\r\n" + GOOD[:100])
            await writer.drain()
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        else:
            writer.write(RAW[name])
        await writer.drain()
    except (OSError, asyncio.IncompleteReadError):
        pass
    finally:
        writer.close()


RAW = {
    "nothing": b"",
    "garbage": b"\0\1\2 hello there\r\n\r\n",
    "huge-header": HEAD + b"X-Long: " + b"a" * 100_000 + b"\r\n\r\n" + GOOD,
    "many-headers": HEAD + b"".join(b"X-%d: y\r\n" % n for n in range(20_000)) + b"\r\n" + GOOD,
    "length-long": HEAD + b"Content-Length: 100000\r\n\r\n" + GOOD,
    "length-short": HEAD + b"Content-Length: 500\r\n\r\n" + GOOD,
    "length-absurd": HEAD + b"Content-Length: 99999999999999\r\n\r\n" + GOOD,
    "length-negative": HEAD + b"Content-Length: -5\r\n\r\n" + GOOD,
    "length-none": HEAD + b"Connection: close\r\n\r\n" + GOOD,
    "two-lengths": HEAD + b"Content-Length: 5\r\nContent-Length: 900\r\n\r\n" + GOOD,
    "bad-chunks": HEAD + b"Transfer-Encoding: chunked\r\n\r\nZZZ\r\n" + GOOD,
    "status-999": b"HTTP/1.1 999 Go away\r\nContent-Length: 0\r\n\r\n",
}


async def start(site: Site, tls: ssl.SSLContext | None) -> list[object]:
    app = web.Application(middlewares=[site.watch])
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    port = socket.create_server(("127.0.0.1", 0))
    others = [socket.create_server((f"127.0.0.{n}", port.getsockname()[1])) for n in range(2, 10)]
    site.port = port.getsockname()[1]
    for path, handler in pages(site).items():
        app.router.add_get(f"/{path}", handler)
    for step in range(9):
        app.router.add_get(f"/hop{step}", redirect(f"/hop{step + 1}"))
    await runner.setup()
    for listener in (port, *others):
        await web.SockSite(runner, listener).start()
    raw = await asyncio.start_server(misbehave, "127.0.0.1", 0)
    site.raw_port = raw.sockets[0].getsockname()[1]
    if tls is not None:
        secure = socket.create_server(("127.0.0.1", 0))
        site.tls_port = secure.getsockname()[1]
        await web.SockSite(runner, secure, ssl_context=tls).start()
    return [runner, raw]


async def stop(servers: list) -> None:
    runner, raw = servers
    raw.close()
    await runner.cleanup()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


@pytest.fixture(scope="session")
def self_signed(tmp_path_factory) -> ssl.SSLContext | None:
    program = shutil.which("openssl")
    if program is None:
        return None
    folder = tmp_path_factory.mktemp("tls")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    command = f"req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -keyout {key} -out {certificate}"
    subprocess.run([program, *command.split()], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


@pytest.fixture(scope="session")
def site(self_signed):
    """The server, shared by all tests of fetching."""
    site, loop, ready = Site(), asyncio.new_event_loop(), Future()
    loop.set_exception_handler(lambda *_: None)  # clients that hang up are what is tested

    def serve() -> None:
        ready.set_result(loop.run_until_complete(start(site, self_signed)))
        loop.run_forever()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    servers = ready.result(10)
    # A listener whose queue is full answers no further connection: the kernel drops what knocks.
    deaf = socket.socket()
    deaf.bind(("127.0.0.1", 0))
    deaf.listen(0)
    site.deaf_port = deaf.getsockname()[1]
    waiting = [socket.socket() for _ in range(3)]
    for knock in waiting:
        knock.setblocking(False)
        knock.connect_ex(deaf.getsockname())
    yield site
    for sock in (deaf, *waiting):
        sock.close()
    asyncio.run_coroutine_threadsafe(stop(servers), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()
