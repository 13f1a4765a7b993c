import asyncio
from typing import Any

import anthropic
import ollama
import openai
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from broker.demo.upstream import make_app

SAY: Any = [{"role": "user", "content": "hello there"}]


def test_each_sdk_is_answered_in_its_own_dialect() -> None:
    async def talk() -> list[str]:
        runner = web.AppRunner(make_app("sk-demo"), access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            return await said(url)
        finally:
            await runner.cleanup()

    async def said(url: str) -> list[str]:
        found: list[str] = []
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="sk-demo") as client:
            chat = await client.chat.completions.create(model="demo-small", messages=SAY)
            found.append(chat.choices[0].message.content or "")
            async with client.chat.completions.stream(model="demo-small", messages=SAY) as chunks:
                final = await chunks.get_final_completion()
            found.append((final.choices[0].message.content or "").rstrip())
            response = await client.responses.create(model="demo-small", input="hello there")
            found.append(response.output_text)
            async with client.responses.stream(model="demo-small", input="hello there") as events:
                found.append((await events.get_final_response()).output_text)
            with pytest.raises(openai.NotFoundError):
                await client.responses.create(model="demo-none", input="hello there")
        async with (
            anthropic.AsyncAnthropic(base_url=url, api_key="sk-demo") as claude,
            claude.messages.stream(model="demo-small", max_tokens=99, messages=SAY) as stream,
        ):
            found.append((await stream.get_final_text()).rstrip())
        headers = {"Authorization": "Bearer sk-demo"}
        async with ollama.AsyncClient(host=url, headers=headers) as llama:
            whole = await llama.chat(model="demo-small", messages=SAY)
            found.append(whole.message.content or "")
            lines: Any = await llama.chat(model="demo-small", messages=SAY, stream=True)
            found.append("".join([line.message.content async for line in lines]).rstrip())
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="sk-other") as stranger:
            with pytest.raises(openai.AuthenticationError):
                await stranger.models.list()
        return found

    answers = asyncio.run(talk())
    assert len(answers) == 7
    assert set(answers) == {answers[0]}
    assert answers[0].endswith("You said: hello there")


def test_its_dashboard_loads_and_unloads() -> None:
    async def walk() -> list[str]:
        async with TestClient(TestServer(make_app("sk-demo"))) as client:
            headers = {"Authorization": "Bearer sk-demo"}
            pages = [await (await client.get("/", headers=headers)).text()]
            for verb in ("load", "unload"):
                answer = await client.post(f"/models/demo-slow/{verb}", headers=headers)
                pages.append(await answer.text())
            assert (await client.post("/models/none/load", headers=headers)).status == 404
            assert (await client.get("/")).status == 401
            return pages

    pages = asyncio.run(walk())
    assert ["models/demo-slow/unload" in page for page in pages] == [False, True, False]
