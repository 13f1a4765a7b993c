import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--quick",
        action="store_true",
        help="only requests/s and latency of the gateway and the bare pass-through; writes nothing",
    )
