"""300 of the requests of benchmarks/hostile_requests.py: no 5xx response, and valid requests still succeed."""

import asyncio
import sys
from pathlib import Path

import pytest
from running_service import ServiceProcess, encode_image, write_checkpoint, write_plan

pytest.importorskip("uvicorn", reason="the service needs the extra 'serve'")
sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
from hostile_requests import send_all


@pytest.mark.parametrize("name", ["net.engine", "net.safetensors"])
def test_hostile_requests_do_not_disturb_service(tmp_path: Path, name: str):
    path = tmp_path / name
    if path.suffix == ".engine":
        write_plan(path)
    else:  # also tests the ghost explorer
        write_checkpoint(path, width=0.1)
    with ServiceProcess(path, "--head-timeout=0.5", "--body-timeout=1", "--max-pixels=10_000_000") as service:
        found = asyncio.run(send_all(service.port, range(300), clients=32))
        assert sum(found.values()) == 300
        statuses = {status for _, status in found}
        assert {200, 400, 408, 413, 415, 422, 431} <= statuses
        assert max(statuses) < 500
        status, response = service.request("POST", "/v1/predict", encode_image())
        assert status == 200
        assert len(response["images"][0]["answers"]) == 3
        assert service.stop() == 0
    assert not [event for event in service.events if event["level"] == "error"]
