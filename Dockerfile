# syntax=docker/dockerfile:1
# All versions, in one place. What has no digest or lock of its own is checked against the checksums that its source publishes.
ARG SWIFT_IMAGE=swift:6.3-noble
ARG BASE_IMAGE=cloudron/base:5.0.0@sha256:04fd70dbd8ad6149c19de39e35718e024417c3e01dc9c6637eaf4a41ec4e596c
ARG GH_VERSION=2.86.0
ARG OPENCODE_VERSION=1.18.18
ARG AIDEVOPS_VERSION=3.7.2

FROM ${SWIFT_IMAGE} AS build
WORKDIR /build
COPY Package.swift ./
COPY Sources Sources
COPY Tests/TestSupport Tests/TestSupport
COPY Benchmarks Benchmarks
# Package.swift names the test targets: their folders must be there, empty as they are.
RUN mkdir -p Tests/SupervisionTests Tests/ServerTests Tests/EndToEndTests \
    && for target in SupervisionTests ServerTests EndToEndTests; do echo > "Tests/$target/empty.swift"; done \
    && swift build -c release --static-swift-stdlib --product aidevops-worker \
    && mkdir /out \
    && cp .build/release/aidevops-worker /usr/libexec/swift/linux/swift-backtrace-static /out/ \
    && strip /out/aidevops-worker

FROM ${BASE_IMAGE}
ARG GH_VERSION
ARG OPENCODE_VERSION
ARG AIDEVOPS_VERSION
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
WORKDIR /tmp
RUN arch="$(dpkg --print-architecture)" \
    && archive="gh_${GH_VERSION}_linux_${arch}.tar.gz" \
    && release="https://github.com/cli/cli/releases/download/v${GH_VERSION}" \
    && curl --fail --silent --show-error --location --remote-name "${release}/${archive}" \
    && curl --fail --silent --show-error --location "${release}/gh_${GH_VERSION}_checksums.txt" \
        | grep " ${archive}\$" | sha256sum --check --strict - \
    && tar --extract --gzip --file "${archive}" --strip-components=2 --directory /usr/local/bin "gh_${GH_VERSION}_linux_${arch}/bin/gh" \
    && rm "${archive}"
# npm checks each archive against the registry's integrity hash.
RUN npm install --global --no-audit --no-fund "opencode-ai@${OPENCODE_VERSION}" "aidevops@${AIDEVOPS_VERSION}" \
    && npm cache clean --force \
    && rm -rf /root/.npm /tmp/*
WORKDIR /app/code
COPY --from=build /out/ /app/code/
COPY start.sh /app/code/
# The gate: the program finds its libraries, and everything that a node needs runs.
RUN ! ldd /app/code/aidevops-worker | grep "not found" \
    && ln -s /app/code/aidevops-worker /usr/local/bin/aidevops-worker \
    && aidevops-worker --version && git --version && gh --version && opencode --version && gosu --version
ENV SWIFT_BACKTRACE=enable=yes,interactive=no,color=no,swift-backtrace=/app/code/swift-backtrace-static
EXPOSE 3000
CMD ["/app/code/start.sh"]
