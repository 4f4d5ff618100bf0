"""What Prometheus is told."""

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

__all__ = ["Metrics"]

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class Metrics:
    """Counters of one service; nothing in them comes from a client, so their number is bounded."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)
        self.requests = Counter(
            "ghostnets_requests", "Requests answered, by route and status.", ["route", "status"], registry=registry
        )
        self.request_seconds = Histogram(
            "ghostnets_request_seconds",
            "From a request's headers to the end of its answer.",
            ["route"],
            buckets=SECONDS,
            registry=registry,
        )
        self.images = Counter(
            "ghostnets_images", "Images answered, and those that could not be read.", ["outcome"], registry=registry
        )
        self.images_in_service = Gauge(
            "ghostnets_images_in_service", "Images accepted and not yet answered.", registry=registry
        )
        self.decode_seconds = Histogram(
            "ghostnets_decode_seconds", "From a file to pixels, one image.", buckets=SECONDS, registry=registry
        )
        self.batch_seconds = Histogram(
            "ghostnets_batch_seconds", "One batch through a network.", buckets=SECONDS, registry=registry
        )
        self.batch_images = Histogram(
            "ghostnets_batch_images", "Images in a batch.", buckets=(1, 2, 4, 8, 16, 32, 64), registry=registry
        )
        self.reloads = Counter("ghostnets_reloads", "Artefacts taken or refused.", ["outcome"], registry=registry)

    def batch(self, images: int, seconds: float) -> None:
        """Notes one batch."""
        self.batch_images.observe(images)
        self.batch_seconds.observe(seconds)

    def text(self) -> bytes:
        """All of it in the text format of Prometheus."""
        return generate_latest(self.registry)
