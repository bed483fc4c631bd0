# Two images from one file: `sidecar` (the default) and `demo`.
ARG PYTHON_IMAGE=python:3.13-slim

# Everything that is installed is pinned by hash, the build backend too; so pip asks the registry for nothing else.
FROM ${PYTHON_IMAGE} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# pip is the base image's own, and the build backend has an environment to itself: the images take over neither.
RUN python3 -m venv --without-pip /opt/realtime-otel && python3 -m venv --without-pip /opt/build
WORKDIR /src
COPY requirements-build.lock requirements-sidecar.lock ./
RUN pip --python /opt/build/bin/python install --require-hashes --no-deps -r requirements-build.lock \
  && pip --python /opt/realtime-otel/bin/python install --require-hashes --no-deps -r requirements-sidecar.lock
COPY pyproject.toml README.md LICENSE ./
COPY emitter emitter
COPY collector_sidecar collector_sidecar
RUN pip --python /opt/build/bin/python wheel --no-deps --no-build-isolation --wheel-dir /dist . \
  && pip --python /opt/realtime-otel/bin/python install --no-deps /dist/*.whl

FROM build AS build-demo
COPY requirements-demo.lock ./
RUN pip --python /opt/realtime-otel/bin/python install --require-hashes --no-deps -r requirements-demo.lock

FROM ${PYTHON_IMAGE} AS runtime
ENV PATH=/opt/realtime-otel/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1

FROM runtime AS demo
COPY --from=build-demo /opt/realtime-otel /opt/realtime-otel
WORKDIR /app
COPY examples examples
USER 10002:10002
# What the demo is: the one place to change it.
CMD ["python", "-m", "examples.voice_agent", "--demo"]

FROM runtime AS sidecar
COPY --from=build /opt/realtime-otel /opt/realtime-otel
# An empty named volume takes over this folder's owner, so the user below can write to it.
RUN install -d -o 10002 -g 10002 -m 0750 /var/lib/realtime-otel
USER 10002:10002
EXPOSE 4317
# It asks for SERVING: the store is open, the journal has been replayed, and records are taken.
HEALTHCHECK --interval=5s --timeout=5s --start-period=60s --retries=3 \
  CMD ["realtime-otel", "health", "--endpoint", "127.0.0.1:4317"]
ENTRYPOINT ["realtime-otel"]
CMD ["sidecar"]
