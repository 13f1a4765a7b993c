"""An admin dashboard, as plain HTTP endpoints have it, with a WebSocket that echoes."""

import hashlib
from typing import Any

from aiohttp import WSCloseCode, WSMsgType, web

from tests.upstream.call import Call, Failed

PAGE = """<!doctype html><title>Models</title>
<h1>Models</h1><a href="/admin/api/models">JSON</a> <a href="old">Old</a>
<form method="post" action="/admin/form"><input name="name"></form>"""


async def page(call: Call) -> web.StreamResponse:
    """GET /admin/: HTML, and a cookie of its own."""
    response = web.Response(text=PAGE, content_type="text/html")
    response.set_cookie("dashboard", "seen", path="/admin/", httponly=True)
    return response


async def models(call: Call) -> web.StreamResponse:
    """GET /admin/api/models: the list. POST: another one of this name."""
    if call.request.method == "GET":
        return web.json_response({"models": ["demo-small", "demo-large"]})
    return web.json_response({"created": call.body.get("name")}, status=201)


async def model(call: Call) -> web.StreamResponse:
    """GET, PUT, PATCH and DELETE of one."""
    name = call.request.match_info["name"]
    if call.request.method == "DELETE":
        return web.Response(status=204)
    if name == "missing":
        raise Failed(404, "There is no such model.", "not_found")
    return web.json_response({"name": name, "method": call.request.method})


async def form(call: Call) -> web.StreamResponse:
    """POST of a form: sees other."""
    fields = await call.request.post()
    return web.Response(status=303, headers={"Location": f"/admin/?made={fields.get('name')!s}"})


async def old(call: Call) -> web.StreamResponse:
    """Moved, within the dashboard, said relatively."""
    return web.Response(status=302, headers={"Location": "./"})


async def moved(call: Call) -> web.StreamResponse:
    """Moved, within the dashboard, said with the upstream's own address."""
    return web.Response(status=302, headers={"Location": f"{call.upstream.url}/admin/"})


async def away(call: Call) -> web.StreamResponse:
    """Moved, to somewhere else."""
    return web.Response(status=302, headers={"Location": "https://elsewhere.example.com/x"})


async def echo(call: Call) -> web.StreamResponse:
    """What it was sent, any method."""
    raw = await call.request.read()
    found: dict[str, Any] = {
        "method": call.request.method,
        "path": call.request.path,
        "query": call.request.query_string,
        "headers": dict(call.request.headers),
        "size": len(raw),
        "sha256": hashlib.sha256(raw).hexdigest(),
    }
    return web.json_response(found)


async def download(call: Call) -> web.StreamResponse:
    """GET /admin/download?size=N: so many bytes, in chunks."""
    size = int(call.request.query.get("size", "1000"))
    response = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
    await response.prepare(call.request)
    for at in range(0, size, 65_536):
        await response.write(b"x" * min(65_536, size - at))
    await response.write_eof()
    return response


async def websocket(call: Call) -> web.StreamResponse:
    """Says again what it is sent; `bye` closes it with 4001."""
    socket = web.WebSocketResponse(protocols=("echo",))
    await socket.prepare(call.request)
    async for message in socket:
        if message.type == WSMsgType.BINARY:
            await socket.send_bytes(message.data)
        elif message.type == WSMsgType.TEXT:
            if message.data == "bye":
                await socket.close(code=4001, message=b"as asked")
            else:
                await socket.send_str(f"{message.data}")
        elif message.type == WSMsgType.ERROR:
            await socket.close(code=WSCloseCode.INTERNAL_ERROR)
    call.record["closed"] = socket.close_code
    return socket


ROUTES = [
    ("GET", "/admin/", page),
    ("GET", "/admin/api/models", models),
    ("POST", "/admin/api/models", models),
    ("*", "/admin/api/models/{name}", model),
    ("POST", "/admin/form", form),
    ("GET", "/admin/old", old),
    ("GET", "/admin/moved", moved),
    ("GET", "/admin/away", away),
    ("*", "/admin/echo", echo),
    ("GET", "/admin/download", download),
    ("GET", "/admin/ws", websocket),
]
