"""The OpenAPI holds: schemathesis sends what it describes and what it forbids, and every answer is as it says."""

from __future__ import annotations

import json
import warnings

import httpx
import pytest

from capfilt.service import access
from capfilt.service.app import build_app
from capfilt.service.config import JobsConfig, LimitsConfig, ServiceConfig
from capfilt.service.models import LocalModels

from .conftest import serving

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its own
    import schemathesis
    from hypothesis import HealthCheck, Phase, settings
    from schemathesis.checks import CHECKS

EXAMPLES = 40


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def token(home):
    return access.new(home / "tokens.yaml", "all", roles=("admin",))


@pytest.fixture(scope="module")
def address(embedded, home, token):
    """Its one token may ask for everything, and opens no place."""
    jobs = JobsConfig(state=str(home / "state"))
    limits = LimitsConfig(queue=512)
    with serving(ServiceConfig(runner="local", tokens=str(home / "tokens.yaml"), jobs=jobs, limits=limits)) as address:
        yield address


schema = schemathesis.openapi.from_dict(build_app(ServiceConfig(runner="local"), LocalModels).openapi())


@schema.parametrize()
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.generate),
)
def test_every_answer_is_as_described(address, token, case):
    # A recipe may break a rule that no schema says: of two fields, or of what is there.
    free = (
        [CHECKS.get_one("positive_data_acceptance")]
        if case.operation.path == "/v1/jobs" and case.operation.method == "post"
        else []
    )
    headers = {"Authorization": f"Bearer {token}"}
    case.call_and_validate(base_url=address, headers=headers, excluded_checks=free)


def test_every_route_and_field_is_described(address):
    told = httpx.get(f"{address}/openapi.json").json()
    for path, item in told["paths"].items():
        for method, operation in item.items():
            assert operation["description"], (method, path)
            assert operation["tags"], (method, path)
    models = told["components"]["schemas"]
    assert {"Problem", "Job", "Results", "JobRequest"} <= set(models)
    assert all(model.get("description") for name, model in models.items() if name not in ("HTTPValidationError",))
    assert told["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"
    assert json.dumps(told).count("HTTPValidationError") == 0, "refusals are Problems"
