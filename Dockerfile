# Serves an engine plan on a CPU, without torch, compiler or root. Usage: docs/serve.md.
#
#   docker build -t ghostnets .
#   docker run --rm -p 127.0.0.1:8000:8000 -v "$PWD/model:/model:ro" ghostnets      serves model/net.engine

FROM python:3.11-slim AS build
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY . .
RUN pip wheel --no-cache-dir --wheel-dir /wheels '.[serve]'

FROM python:3.11-slim
RUN --mount=type=bind,from=build,source=/wheels,target=/wheels \
    pip install --no-cache-dir --no-index --no-deps /wheels/*.whl \
    && useradd --system --no-create-home --uid 10001 ghostnets
USER 10001
EXPOSE 8000
# "docker stop" sends SIGTERM, which drains the service; its timeout must exceed --drain-timeout.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/readyz', timeout=2)"]
ENTRYPOINT ["ghostnets", "serve"]
CMD ["/model/net.engine", "--host", "0.0.0.0"]
