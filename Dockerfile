# deqir on the CPU. Build: docker build -t deqir .   Run: docker run --rm -v "$PWD:/work" deqir restore photo.jpg --task sr --out results
# pip may be told more, a CPU-only torch say: docker build --build-arg PIP_ARGS="--extra-index-url URL" -t deqir .
FROM python:3.12-slim
ARG PIP_ARGS=""
COPY . /src
# hadolint ignore=DL3013,SC2086
RUN pip install --no-cache-dir $PIP_ARGS /src && rm -rf /src && useradd --create-home --uid 1000 deqir
USER 1000:1000
WORKDIR /work
ENTRYPOINT ["deqir"]
CMD ["--help"]
