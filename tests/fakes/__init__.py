"""Fakes of providers that can't be had here: real HTTP servers that keep state.

Each checks every request and every answer by a schema in tests/fakes/schemas/, which holds the
published facts; test_published.py compares those with what the provider publishes as code.
"""
