# All programs of PrimeTrade in one image; which one runs is said by its user (docker-compose.yml).
#
# The crates that the workspace depends on are a layer of their own: it is built again only when Cargo.lock or a
# Cargo.toml changes.

FROM rust:1.95-bookworm AS sources
WORKDIR /build
COPY . .
# only what decides about dependencies: manifests, and an empty source where each expects one
RUN mkdir /skeleton && cp --parents Cargo.toml Cargo.lock */Cargo.toml crates/*/Cargo.toml /skeleton \
    && cd /skeleton && for crate in */Cargo.toml crates/*/Cargo.toml; do mkdir -p "${crate%/*}/src" && touch "${crate%/*}/src/lib.rs"; done \
    && echo 'fn main() {}' >primetrade/src/main.rs

FROM rust:1.95-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends libssl-dev pkg-config && rm -rf /var/lib/apt/lists/*
WORKDIR /build
ENV SQLX_OFFLINE=true
COPY --from=sources /skeleton .
RUN cargo build --profile dist --locked -p primetrade -p services
COPY . .
# newer than the empty ones
RUN find . -path ./target -prune -o -name '*.rs' -exec touch {} + \
    && cargo build --profile dist --locked -p primetrade -p services \
    && mkdir /programs && cp target/dist/primetrade target/dist/command-api target/dist/query-api target/dist/projector target/dist/primetrade-salvage /programs

FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates libssl3 && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --no-create-home primetrade \
    && install -d -o 10001 /var/lib/primetrade
COPY --from=build /programs /usr/local/bin/
USER 10001
CMD ["primetrade", "--help"]
