"""Managing keys, as providers let their customers do: several can be good at a time."""

import json
import secrets
from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    from tests.upstream.server import Upstream

PATH = "/.keys"


async def serve(upstream: "Upstream", request: web.Request) -> web.Response:
    """GET ?name= lists, POST {"name"} makes one and tells it once, DELETE /<id> ends it."""
    if not upstream.manages:
        return web.json_response({"error": "overloaded"}, status=503)
    if request.headers.get("Authorization") != f"Bearer {upstream.admin_key}":
        return web.json_response({"error": "no admin key"}, status=401)
    pk = request.path.removeprefix(PATH).strip("/")
    match request.method:
        case "GET":
            name = request.query.get("name")
            found = [
                {"id": pk, "name": its}
                for pk, (its, _) in upstream.managed.items()
                if name in {None, its}
            ]
            return web.json_response({"keys": found})
        case "POST":
            body = json.loads(await request.read())
            pk, key = secrets.token_hex(6), f"sk-{secrets.token_hex(16)}"
            upstream.managed[pk] = body["name"], key
            upstream.keys.add(key)
            return web.json_response({"id": pk, "key": key}, status=201)
        case "DELETE" if pk in upstream.managed:
            _, key = upstream.managed.pop(pk)
            upstream.keys.discard(key)
            return web.json_response({})
    return web.json_response({"error": "no such key"}, status=404)
