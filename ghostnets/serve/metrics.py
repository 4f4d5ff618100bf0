"""Prometheus metrics."""

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

LATENCY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class Metrics:
    """Metrics of one service; no label is taken from client input, so their number is bounded."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)
        self.requests = Counter(
            "ghostnets_requests", "Requests, by route and status.", ["route", "status"], registry=registry
        )
        self.request_seconds = Histogram(
            "ghostnets_request_seconds",
            "Time from a request's headers to the end of its response.",
            ["route"],
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        self.images = Counter(
            "ghostnets_images", "Images answered, and images that could not be read.", ["outcome"], registry=registry
        )
        self.images_in_service = Gauge(
            "ghostnets_images_in_service", "Images accepted and not yet answered.", registry=registry
        )
        self.decode_seconds = Histogram(
            "ghostnets_decode_seconds",
            "Time to decode and resize one image.",
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        self.batch_seconds = Histogram(
            "ghostnets_batch_seconds", "Time to run one batch.", buckets=LATENCY_BUCKETS, registry=registry
        )
        self.batch_images = Histogram(
            "ghostnets_batch_images", "Images per batch.", buckets=(1, 2, 4, 8, 16, 32, 64), registry=registry
        )
        self.reloads = Counter("ghostnets_reloads", "Reloads, by outcome.", ["outcome"], registry=registry)

    def observe_batch(self, images: int, seconds: float) -> None:
        """Record one batch."""
        self.batch_images.observe(images)
        self.batch_seconds.observe(seconds)

    def text(self) -> bytes:
        """Return all metrics in the Prometheus text format."""
        return generate_latest(self.registry)
