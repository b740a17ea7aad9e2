# ringcast in a container. Build: docker build -t ringcast .
#
# Run it in the host's network: media then reaches it without address translation, and the API stays on the host's
# loopback address.
#
#   docker run --rm --network host --security-opt seccomp=unconfined --ulimit memlock=67108864 ringcast
#
# What it asks of the container runtime, and what happens without:
#   io_uring   The default seccomp profiles of Docker and containerd refuse io_uring_setup, io_uring_enter and
#              io_uring_register: allow the three in a profile, or run with seccomp=unconfined. Before Linux 5.12 rings
#              also count against RLIMIT_MEMLOCK (--ulimit memlock). Where it is refused, also by the sysctl
#              kernel.io_uring_disabled, shards run on plain threads; the log says which at start.
#   BPF        Steering datagrams to their shard in the kernel needs CAP_BPF in effect. Docker gives added capabilities
#              to root only: --user 0 --cap-drop ALL --cap-add BPF (or a runtime with ambient capabilities). Without,
#              shards hand datagrams to each other in user space; the log says which at start.
#   buffers    Without CAP_NET_ADMIN, socket buffers are bounded by the sysctls net.core.rmem_max and wmem_max of the
#              host; the log warns when they are small.
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
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends libssl3 && rm -rf /var/lib/apt/lists/*
RUN useradd --system --no-create-home --shell /usr/sbin/nologin ringcast
COPY --from=build /ringcast/target/release/ringcast /usr/local/bin/ringcast
USER ringcast
EXPOSE 6040/tcp 10000/udp 10000/tcp
# No curl in a slim image: bash speaks enough HTTP.
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s CMD ["bash", "-c", \
    "exec 3<>/dev/tcp/127.0.0.1/6040 && printf 'GET /healthz HTTP/1.0\\r\\n\\r\\n' >&3 && head -n 1 <&3 | grep -q ' 200 '"]
ENTRYPOINT ["ringcast"]
