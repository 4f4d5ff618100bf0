"""300 of the requests of benchmarks/hostile_requests.py: no 5xx response, and valid requests still succeed."""

import asyncio
import shutil
import sys
from pathlib import Path

import pytest
from running_service import ServiceProcess, encode_image, write_checkpoint, write_plan

pytest.importorskip("uvicorn", reason="the service needs the extra 'serve'")
sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
from hostile_requests import send_all


@pytest.mark.parametrize(("name", "count"), [("net.engine", 300), ("net.safetensors", 300), ("fish.safetensors", 100)])
def test_hostile_requests_do_not_disturb_service(tmp_path: Path, tiny_detector: Path, name: str, count: int):
    path = tmp_path / name
    if name == tiny_detector.name:
        shutil.copy(tiny_detector, path)
    elif path.suffix == ".engine":
        write_plan(path)
    else:  # also tests the ghost explorer
        write_checkpoint(path, width=0.1)
    with ServiceProcess(path, "--head-timeout=0.5", "--body-timeout=1", "--max-pixels=10_000_000") as service:
        found = asyncio.run(send_all(service.port, range(count), clients=32))
        assert sum(found.values()) == count
        statuses = {status for _, status in found}
        assert {200, 400, 408, 413, 415, 422, 431} <= statuses
        assert max(statuses) < 500
        status, response = service.request("POST", "/v1/predict", encode_image())
        assert status == 200
        answer = response["images"][0]
        assert answer["objects"] if name == tiny_detector.name else len(answer["answers"]) == 3
        assert service.stop() == 0
    assert not [event for event in service.events if event["level"] == "error"]
