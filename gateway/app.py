"""The policy enforcement point, as an ASGI application."""

import asyncio
import gc

from django.conf import settings

from audit.clock import Skewed, check_skew
from gateway import admission
from gateway.asking import Ask
from gateway.books import Books
from gateway.call import Call
from gateway.metrics import Metrics, Traces, is_traced, traces
from gateway.recording import Recorder
from gateway.registry import Registry
from gateway.upstreams import Upstreams
from gateway.websocket import Socket
from gateway.wire import Receive, Scope, Send, answer


class Gateway:
    """One per process."""

    def __init__(self) -> None:
        self._ask = Ask("ask", threads=8)
        # Writing a batch must never wait behind eight questions to a Vault that doesn't answer.
        self._ask_books = Ask("books", threads=4)
        self.recorder = Recorder()
        self.upstreams = Upstreams()
        self.registry = Registry(self._ask)
        self.books = Books(self._ask_books, self.recorder, self.upstreams, self.registry.keys)
        self._traces: Traces | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["path"] == "/healthz" and scope["type"] == "http":
            await answer(send, 200, {"status": "ok"}, [])
        elif scope["path"] == "/readyz" and scope["type"] == "http":
            faults = [*self.registry.faults, *self.books.faults]
            status = {"status": "unready", "faults": faults} if faults else {"status": "ready"}
            await answer(send, 503 if faults else 200, status, [])
        elif scope["type"] == "http" and scope["path"].startswith(admission.PREFIX):
            code, headers, body = await admission.admit_request(self.registry, scope)
            await answer(send, code, body, headers)
        else:
            self.books.open_calls += 1
            try:
                kind = Socket if scope["type"] == "websocket" else Call
                await kind(self, scope, receive, send).serve()
            finally:
                self.books.open_calls -= 1

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                try:
                    await asyncio.to_thread(check_skew)
                except Skewed as error:
                    await send({"type": "lifespan.startup.failed", "message": str(error)})
                    return
                self.start()
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                await self.stop()
                await send({"type": "lifespan.shutdown.complete"})
                return

    def start(self) -> None:
        """Open the pool of upstream connections, begin to watch for what ends and to write."""
        # What is loaded by now stays. Records wait for half a second in thousands; looking through
        # them for cycles again and again took as long as checking a call does, and there are none.
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 50)
        self.upstreams.start()
        self.registry.start()
        self.books.start()
        if settings.KEYTURN_GATEWAY_METRICS:
            metrics = Metrics(self)
            metrics.serve(settings.KEYTURN_GATEWAY_METRICS)
            self.recorder.observers.append(metrics.saw)
        if is_traced():
            self._traces = traces()
            self.recorder.observers.append(self._traces.saw)

    async def stop(self) -> None:
        """Close everything that `start` opened; write down the last calls."""
        await self.registry.stop()
        await self.books.stop()
        await self.upstreams.stop()
        self._ask.stop()
        self._ask_books.stop()
        if self._traces is not None:
            self._traces.provider.shutdown()
