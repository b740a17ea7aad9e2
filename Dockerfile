# ringcast in a container. Build: docker build -t ringcast .
#
# Run it in the host's network: media then reaches it without address translation, and the API stays on the host's
# loopback address. .deploy/compose.yml does that, with Kafka, Prometheus and Grafana on demand.
#
#   docker run --rm --network host --security-opt seccomp=.deploy/seccomp.json --ulimit memlock=67108864 ringcast
#   docker run --rm --network host --security-opt seccomp=.deploy/seccomp.json --ulimit memlock=67108864 ringcast doctor
#
# What it asks of the container runtime; without, it works, less well, and `doctor` says so:
#   io_uring   The default seccomp profiles of Docker and containerd refuse it; .deploy/seccomp.json allows it, and less of
#              the rest. Where it is refused, also by the sysctl kernel.io_uring_disabled, shards run on plain threads.
#   BPF        Steering datagrams to their shard in the kernel needs CAP_BPF in effect. Docker gives added capabilities
#              to root only: --user 0 --cap-drop ALL --cap-add BPF (or a runtime with ambient capabilities). Without,
#              shards hand datagrams to each other in user space.
#   buffers    Without CAP_NET_ADMIN, socket buffers are bounded by the host's sysctls: .deploy/sysctl/60-ringcast.conf.
#
# With published ports (-p 10000:10000/udp -p 10000:10000/tcp -p 6040:6040) instead of the host's network, name the
# address that clients reach (-e RINGCAST_ANNOUNCE=203.0.113.7) and open the API inside the container
# (-e RINGCAST_API_LISTEN=0.0.0.0:6040 -e RINGCAST_ALLOW_ANONYMOUS=true). Everyone who reaches the API may use it.

FROM rust:1-slim-bookworm AS build
# librdkafka is built from its source; OpenSSL is the system's.
RUN apt-get update -qq \
    && apt-get install -y -qq --no-install-recommends g++ make libssl-dev pkg-config \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /ringcast
COPY . .
RUN cargo build --release --locked --package ringcast --bin ringcast

FROM debian:bookworm-slim
LABEL org.opencontainers.image.title="ringcast" \
      org.opencontainers.image.description="A WebRTC selective forwarding unit: one binary, one UDP port, every core" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.base.name="docker.io/library/debian:bookworm-slim"
RUN apt-get update -qq \
    && apt-get install -y -qq --no-install-recommends ca-certificates libssl3 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin ringcast \
    && install -d -m 770 -o ringcast -g root /var/lib/ringcast
COPY --from=build /ringcast/target/release/ringcast /usr/local/bin/ringcast
# As a number, so that Kubernetes can tell that it is not root.
USER 10001:10001
# Events that Kafka or a webhook did not take yet; a volume of its own keeps them over restarts.
ENV RINGCAST_SPOOL_DIR=/var/lib/ringcast
VOLUME /var/lib/ringcast
EXPOSE 6040/tcp 10000/udp 10000/tcp
# The first one drains: no new rooms, calls go on (docker stop --time 3660); a second one ends them.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s CMD ["ringcast", "health"]
ENTRYPOINT ["ringcast"]
