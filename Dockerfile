FROM rust:1.98.0-slim-trixie AS build
WORKDIR /src
# The final stage contains only the binary, so the binary includes the C library. `--target` keeps this flag from procedural
# macros, which cannot be built with it. One codegen unit per crate: slower to build, smaller and slightly faster to run.
ENV RUSTFLAGS="-C target-feature=+crt-static" \
    CARGO_PROFILE_RELEASE_CODEGEN_UNITS=1
# The dependencies have their own layer, which is rebuilt only when the manifests change.
COPY Cargo.toml Cargo.lock ./
COPY crates/decision/Cargo.toml crates/decision/
COPY crates/reader/Cargo.toml crates/reader/
COPY testkit/Cargo.toml testkit/
COPY examples/Cargo.toml examples/
COPY packaging/Cargo.toml packaging/
RUN mkdir -p src crates/decision/src crates/reader/src testkit/src && echo 'fn main() {}' >src/main.rs && \
    touch src/lib.rs crates/decision/src/lib.rs crates/reader/src/lib.rs testkit/src/lib.rs && \
    rustc -vV | sed -n 's/^host: //p' >/target && \
    cargo build --release --locked --features otlp --bin prompt-rollback --target "$(cat /target)"
# The program. Cargo compares modification times, and those of a checkout can be older than the layer above.
COPY crates crates
COPY src src
COPY alert-rules alert-rules
COPY config/alertmanager.yml config/users.acl config/
COPY packaging/deb/prompt-rollback.service packaging/deb/
COPY packaging/sysusers.d packaging/sysusers.d
COPY deploy/helm/values/init.yaml deploy/helm/values/
RUN touch src/main.rs src/lib.rs crates/decision/src/lib.rs crates/reader/src/lib.rs && \
    cargo build --release --locked --features otlp --bin prompt-rollback --target "$(cat /target)" && \
    mkdir -p /root-fs/etc/ssl/certs /root-fs/usr/local/bin && \
    cp /etc/ssl/certs/ca-certificates.crt /root-fs/etc/ssl/certs/ && \
    cp "target/$(cat /target)/release/prompt-rollback" /root-fs/usr/local/bin/ && \
    echo 'prompt-rollback:x:65532:65532::/nonexistent:/sbin/nologin' >/root-fs/etc/passwd && \
    echo 'prompt-rollback:x:65532:' >/root-fs/etc/group

FROM scratch
COPY --from=build /root-fs /
COPY config/prompt-rollback.toml /etc/prompt-rollback/prompt-rollback.toml
# Numeric, because Kubernetes' runAsNonRoot cannot check a name.
USER 65532:65532
# Loopback is unreachable from outside a container. On any other address, `serve` requires both tokens.
ENV PROMPT_ROLLBACK_SERVER__LISTEN=0.0.0.0:8000
EXPOSE 8000
# Without --url, so that PROMPT_ROLLBACK_URL can name another address, as TLS requires.
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s \
    CMD ["prompt-rollback", "healthcheck"]
ENTRYPOINT ["prompt-rollback"]
CMD ["serve", "--config", "/etc/prompt-rollback/prompt-rollback.toml"]
ARG REVISION=unknown
LABEL org.opencontainers.image.title="prompt-rollback" \
      org.opencontainers.image.description="Rolls a misbehaving LLM prompt back to its last known-good version" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.revision="$REVISION"
