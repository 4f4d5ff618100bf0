import resource
from pathlib import Path

import numpy as np
import pytest

from ghostnets.errors import StorageError

openvino = pytest.importorskip("openvino", reason="OpenVINO is in the export extra")


def test_save_on_full_disk_fails(tmp_path: Path):
    from openvino import opset13 as ops

    from ghostnets.export.openvino import save

    x = ops.parameter([1, 10_000], np.float32)
    model = openvino.Model([ops.add(x, ops.constant(np.ones((1, 10_000), np.float32)))], [x])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(StorageError, match=r"OpenVINO could not write net.xml"):
            save(model, tmp_path / "net.xml", compress_to_f16=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    save(model, tmp_path / "net.xml", compress_to_f16=False)
    assert (tmp_path / "net.bin").stat().st_size == 40_000
