"""Options of ``ghostnets bench``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from ghostnets.cli.options.base import CommandOptions, JsonOutput
from ghostnets.cli.options.checks import check_at_least, check_choices, check_folder, find_network
from ghostnets.errors import ConfigurationError, GhostNetsError, require_installed

__all__ = ["BACKEND_LIBRARIES", "PRECISIONS", "BenchCommand"]

# Name and libraries of each backend, and the precisions; a test compares them with those of ghostnets.bench.
BACKEND_LIBRARIES = {
    "eager": ("torch",),
    "compile": ("torch",),
    "onnxruntime": ("onnxruntime", "onnx", "onnxscript"),
    "openvino": ("openvino",),
    "engine": ("ghostnets",),
}
PRECISIONS = ("f32", "bf16", "int8")


@dataclass(frozen=True)
class BenchCommand(CommandOptions):
    """Benchmark networks across backends: all combinations are timed interleaved, in one run.

    timm:NAME and torchvision:NAME add networks of these libraries. Weights and inputs are random. The processor, the
    versions and the configuration of each backend are printed above the table.

    Examples: ghostnets bench ghostnet_100 --backends eager,openvino --threads 1,2
    | ghostnets bench ghostnet_100 ghostnetv3_100 torchvision:mobilenet_v3_large --backends openvino --out bench
    """

    command: ClassVar[str] = "bench"

    networks: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="MODEL")]
    """Names (ghostnets list), timm:NAME, or torchvision:NAME."""
    backends: str = "eager"
    """Comma-separated: eager, compile, onnxruntime, openvino, engine."""
    batch: str = "1"
    """Comma-separated batch sizes."""
    threads: str = "1"
    """Comma-separated numbers of threads."""
    precision: str = "f32"
    """Comma-separated: f32, bf16, int8."""
    baseline: str | None = None
    """Backend that speedups refer to, with the first network; the first backend by default."""
    image_size: int | None = None
    """Side of the input in pixels; each network's own by default."""
    runs: int = 200
    """Minimum number of timed runs of each combination."""
    rounds: int = 10
    """Number of interleaved blocks that the runs are distributed over."""
    out: Path | None = None
    """Folder for bench.json and figures (SVG)."""
    json: JsonOutput = False

    @property
    def batches(self) -> tuple[int, ...]:
        """Batch sizes."""
        return _split_numbers("--batch", self.batch)

    @property
    def thread_counts(self) -> tuple[int, ...]:
        """Numbers of threads."""
        return _split_numbers("--threads", self.threads)

    @property
    def backend_names(self) -> tuple[str, ...]:
        """Names of the backends."""
        return _split(self.backends)

    @property
    def precisions(self) -> tuple[str, ...]:
        """Precisions."""
        return _split(self.precision)

    def check(self) -> None:
        if not self.networks:
            raise ConfigurationError("no network is given; name some (ghostnets list), for example ghostnet_100.")
        for network in self.networks:
            try:
                find_network(network, foreign=True, any_task=True)
            except GhostNetsError as error:
                if Path(network).exists():
                    raise ConfigurationError(
                        f"{network} is a file or folder, and networks are benchmarked by name, with random weights;"
                        " time the layers of a checkpoint by: ghostnets profile CHECKPOINT"
                    ) from error
                raise
        check_choices("backend", self.backend_names, BACKEND_LIBRARIES)
        check_choices("precision", self.precisions, PRECISIONS)
        for option, numbers in (("--batch", self.batches), ("--threads", self.thread_counts)):
            for number in numbers:
                check_at_least(option, number, 1)
        for option, value in (("--image-size", self.image_size), ("--runs", self.runs), ("--rounds", self.rounds)):
            check_at_least(option, value, 1)
        check_folder("--out", self.out)
        for name in self.backend_names:
            require_installed(*BACKEND_LIBRARIES[name], extra="bench")


def _split(value: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in value.split(",") if part.strip())


def _split_numbers(option: str, value: str) -> tuple[int, ...]:
    try:
        return tuple(map(int, _split(value)))
    except ValueError as error:
        raise ConfigurationError(f"{option} is {value!r}; pass comma-separated integers.") from error
