"""That the fakes are as their providers publish them: by the providers' own packages."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Required, get_args, get_origin, get_type_hints

import openai
import pytest
from azure.core.credentials import AccessToken
from azure.mgmt.cognitiveservices import CognitiveServicesManagementClient
from azure.mgmt.cognitiveservices.models import ApiKeys, KeyName, RegenerateKeyParameters
from openai.types.admin.organization.projects import (
    ProjectServiceAccount,
    ServiceAccountCreateParams,
    ServiceAccountCreateResponse,
    ServiceAccountDeleteResponse,
    service_account_create_params,
    service_account_list_params,
)
from openai.types.admin.organization.projects.service_account_create_response import APIKey

from credentials.rotators import azure_openai
from tests.fakes.azure_management import AzureManagement
from tests.fakes.openai_admin import OpenAIAdmin
from tests.fakes.server import SCHEMAS

LITELLM = Path(__file__).resolve().parents[2] / ".venv-bench" / "bin" / "python"


def facts(name: str) -> dict[str, Any]:
    return dict(json.loads((SCHEMAS / f"{name}.json").read_text()))


def plain(schema: dict[str, Any], defs: dict[str, Any]) -> set[Any]:
    """What a value may be: names of types, and constants, whichever way the schema says it."""
    if "$ref" in schema:
        return plain(defs[schema["$ref"].rpartition("/")[2]], defs)
    if "anyOf" in schema:
        return set().union(*(plain(each, defs) for each in schema["anyOf"]))
    if "const" in schema:
        return {schema["const"]}
    if "enum" in schema:
        return {"null" if each is None else each for each in schema["enum"]}
    kind = schema["type"]
    return set(kind) if isinstance(kind, list) else {kind}


def same(ours: dict[str, Any], theirs: dict[str, Any], defs: dict[str, Any]) -> None:
    """Everything that our schema says, theirs says too, and requires the same."""
    kept, known = theirs.get("$defs", {}), theirs["properties"]
    assert set(ours.get("required", [])) == set(theirs.get("required", []))
    for name, schema in ours["properties"].items():
        assert plain(schema, defs) == plain(known[name], kept), name


# OpenAI


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("account", ProjectServiceAccount),
        ("created", ServiceAccountCreateResponse),
        ("key", APIKey),
        ("deleted", ServiceAccountDeleteResponse),
    ],
)
def test_openais_answers(name: str, model: Any) -> None:
    defs = facts("openai_admin")["$defs"]
    same(defs[name], model.model_json_schema(), defs)
    assert set(defs[name]["properties"]) == set(model.model_fields)


def test_openais_parameters() -> None:
    published = facts("openai_admin")
    said = get_type_hints(
        ServiceAccountCreateParams, vars(service_account_create_params), include_extras=True
    )
    ours = published["$defs"]["create"]
    assert set(said) == set(ours["properties"])
    assert {k for k, v in said.items() if get_origin(v) is Required} == set(ours["required"])
    names = {str: "string", int: "integer", bool: "boolean", type(None): "null"}
    for name, hint in said.items():
        assert {names[each] for each in get_args(hint)} == plain(ours["properties"][name], {})
    pages = get_type_hints(service_account_list_params.ServiceAccountListParams)
    listing = published["operations"]["GET /v1/organization/projects/{project_id}/service_accounts"]
    assert set(pages) == set(listing["query"]["properties"])


def test_openais_own_client_works_with_the_fake() -> None:
    with OpenAIAdmin(admin_key="sk-admin-1") as fake:
        for number in range(45):
            fake.add(f"theirs {number}")
        client = openai.OpenAI(
            api_key="none",
            admin_api_key="sk-admin-1",
            base_url=f"{fake.url}/v1",
            max_retries=0,
            _strict_response_validation=True,
        )
        accounts = client.admin.organization.projects.service_accounts
        made = accounts.create(fake.project, name="mine", expires_in_seconds=3600)
        assert made.api_key is not None
        assert fake.takes(made.api_key.value)
        listed = list(accounts.list(fake.project, limit=20))
        assert [each.name for each in listed][-1] == "mine"
        assert len(listed) == 46
        assert accounts.delete(made.id, project_id=fake.project).deleted
        with pytest.raises(openai.NotFoundError):
            accounts.delete(made.id, project_id=fake.project)
        assert not fake.takes(made.api_key.value)
        assert not fake.violations
        assert len(fake.done) == 5


# Azure


class Token:
    def __init__(self, token: str) -> None:
        self.token = token

    def get_token(self, *_: str, **__: Any) -> AccessToken:
        return AccessToken(self.token, 2**31)


@pytest.fixture
def azure() -> Iterator[AzureManagement]:
    with AzureManagement(client_secret="s") as fake:
        fake.tokens.add("t")
        yield fake
        assert not fake.violations


def test_azures_own_client_works_with_the_fake(azure: AzureManagement) -> None:
    client = CognitiveServicesManagementClient(Token("t"), "a-subscription", base_url=azure.url)
    before = dict(azure.keys)
    answer = client.accounts.regenerate_key(
        azure.resource_group,
        azure.account,
        KeyName.KEY2,
        enforce_https=False,
    )
    assert (answer.key1, answer.key2) == (before["Key1"], azure.keys["Key2"])
    assert azure.keys["Key2"] != before["Key2"]


def test_azures_models_and_version() -> None:
    published = facts("azure_management")
    [[name, said]] = RegenerateKeyParameters._attribute_map.items()
    ours = published["$defs"]["RegenerateKeyParameters"]
    assert ours["required"] == [said["key"]] == list(ours["properties"])
    assert RegenerateKeyParameters._validation[name]["required"]
    assert ours["properties"]["keyName"]["enum"] == [each.value for each in KeyName]
    keys = {each["key"]: each["type"] for each in ApiKeys._attribute_map.values()}
    assert keys == dict.fromkeys(published["$defs"]["ApiKeys"]["properties"], "str")
    [regenerate, _] = published["operations"].values()
    version = CognitiveServicesManagementClient(Token("t"), "s")._config.api_version
    assert regenerate["query"]["properties"]["api-version"]["const"] == version
    assert version == azure_openai.API_VERSION


# LiteLLM

ASKS = """
import json
from litellm.proxy import _types, proxy_server
print(json.dumps([
    _types.GenerateKeyRequest.model_json_schema(),
    _types.GenerateKeyResponse.model_json_schema(),
    _types.KeyRequest.model_json_schema(),
    sorted(_types.KeyListResponseObject.__annotations__),
    {path: said for path, said in proxy_server.app.openapi()["paths"].items()
     if path.startswith("/key/")},
]))
"""


@pytest.mark.slow
def test_litellms_models_and_routes() -> None:
    if not LITELLM.exists():
        pytest.skip("litellm is among what the benchmarks need: make bench installs it")
    done = subprocess.run(
        [LITELLM, "-c", ASKS],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"},
    )
    asked, made, ended, listed, paths = json.loads(done.stdout.splitlines()[-1])
    published = facts("litellm_proxy")
    defs = published["$defs"]
    same(defs["GenerateKeyRequest"], asked, defs)
    same(defs["GenerateKeyResponse"], made, defs)
    same(defs["KeyRequest"], ended, defs)
    assert set(defs["KeyListResponseObject"]["properties"]) == set(listed)
    for operation, said in published["operations"].items():
        method, path = operation.split(" ")
        theirs = paths[path][method.lower()]
        query = {each["name"] for each in theirs.get("parameters", []) if each["in"] == "query"}
        assert set(said["query"].get("properties", {})) <= query
