"""The tests' own upstream: a provider that misbehaves when told to, and counts for itself.

`Upstream` serves OpenAI's, Anthropic's and Ollama's APIs, a dashboard and a WebSocket from a thread
of the test process. It is stricter than the demo upstream where a provider would be: a key in
another dialect's header is refused, limits are obeyed, and what it says costs tokens.
"""

from tests.upstream.call import Behaviour
from tests.upstream.server import Upstream

__all__ = ["Behaviour", "Upstream"]
