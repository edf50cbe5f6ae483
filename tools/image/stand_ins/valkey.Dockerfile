# Debian's Valkey, for `make image` where no registry has the image of Valkey.
ARG BASE
FROM ${BASE}
RUN apt-get -qq update \
    && DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes --no-install-recommends valkey-server valkey-tools \
    && mkdir --parents /data \
    && chown valkey:valkey /data
VOLUME /data
WORKDIR /data
USER valkey
