"""`python -m gateway`: uvicorn with all of its options, serving the gateway by `Protocol`."""

import sys

from uvicorn.config import HTTP_PROTOCOLS
from uvicorn.main import main

HTTP_PROTOCOLS["auto"] = "gateway.transport:Protocol"

if __name__ == "__main__":
    sys.argv.append("gateway.asgi:application")
    main()
