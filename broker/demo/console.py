"""The demo upstream's dashboard: which of its models are loaded, to be loaded and unloaded."""

from aiohttp import web

LOADED = web.AppKey("loaded", set[str])

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="color-scheme" content="light dark">
<title>Model console</title>
<h1>Model console</h1>
<p>{label}</p>
<table>{rows}</table>
</html>
"""
# Relative, as a page behind a path that isn't its own has to be.
_ROW = """<tr><td>{name}</td><td>{state}</td>
<td><form method="post" action="models/{name}/{verb}"><button>{verb}</button></form></td></tr>
"""


def add_to(app: web.Application, label: str, models: tuple[str, ...]) -> None:
    """Serve it at `/` of this application."""
    app[LOADED] = set(models[:2])

    async def page(_: web.Request) -> web.Response:
        rows = [
            _ROW.format(
                name=name,
                state="loaded" if name in app[LOADED] else "not loaded",
                verb="unload" if name in app[LOADED] else "load",
            )
            for name in models
        ]
        html = _PAGE.format(label=label, rows="".join(rows))
        return web.Response(text=html, content_type="text/html")

    async def change(request: web.Request) -> web.Response:
        name, verb = request.match_info["name"], request.match_info["verb"]
        if name not in models:
            raise web.HTTPNotFound
        (app[LOADED].add if verb == "load" else app[LOADED].discard)(name)
        return web.Response(status=303, headers={"Location": "/"})

    app.router.add_get("/", page)
    app.router.add_post("/models/{name}/{verb:load|unload}", change)
