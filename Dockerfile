# sluice with an nginx (and its lua module) inside. State is in /var/lib/sluice: give it a volume, or a restart of the
# container starts with an empty registry. The API listens on loopback; to open it, give it a token:
#   docker run -v sluice:/var/lib/sluice -p 8080:8080 sluice
FROM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o /sluice ./cmd/sluice

FROM debian:bookworm-slim
# The policy keeps Debian from starting its own nginx at installation.
RUN printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d && chmod 755 /usr/sbin/policy-rc.d \
	&& apt-get update \
	&& apt-get install -y --no-install-recommends ca-certificates nginx-core \
		libnginx-mod-http-lua libnginx-mod-stream lua-resty-core lua-resty-lrucache lua-cjson \
	&& rm -rf /var/lib/apt/lists/* /etc/nginx/sites-enabled/default \
	&& useradd --system --home-dir /var/lib/sluice --shell /usr/sbin/nologin sluice \
	&& install -d -o sluice -g sluice -m 0750 /var/lib/sluice
COPY --from=build /sluice /usr/local/bin/sluice
USER sluice
VOLUME /var/lib/sluice
# Without root nginx cannot have ports below 1024: publish 8080 as 80.
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["sluice", "status"]
STOPSIGNAL SIGTERM
# sluice is the first process: when it is told to stop, nginx serves what is open to its end, and goes too.
ENTRYPOINT ["sluice"]
CMD ["run", "--on-exit=quit", "--log-format=json"]
