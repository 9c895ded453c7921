FROM rust:1.88.0-slim-bookworm AS build
WORKDIR /src
# .dockerignore lets in only what the binary is built from.
COPY . .
# Slower to build, smaller and a little faster to run.
ENV CARGO_PROFILE_RELEASE_CODEGEN_UNITS=1 CARGO_PROFILE_RELEASE_LTO=thin
RUN cargo build --release --locked --bin prompt-rollback

# The same Debian release as above, for the same libc.
FROM debian:bookworm-20260202-slim
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /src/target/release/prompt-rollback /usr/local/bin/prompt-rollback
COPY config/prompt-rollback.toml /etc/prompt-rollback/prompt-rollback.toml
# A number, so that Kubernetes' runAsNonRoot can tell.
USER 65532:65532
# In a container loopback reaches nobody. Listening elsewhere, `serve` insists on both tokens.
ENV PROMPT_ROLLBACK_SERVER__LISTEN=0.0.0.0:8000
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s \
    CMD ["prompt-rollback", "healthcheck", "--url", "http://127.0.0.1:8000"]
ENTRYPOINT ["prompt-rollback"]
CMD ["serve", "--config", "/etc/prompt-rollback/prompt-rollback.toml"]
