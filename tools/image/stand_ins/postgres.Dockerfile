# Debian's PostgreSQL, started as the image of PostgreSQL is: for `make image` where no registry has that one.
ARG BASE
FROM ${BASE}
RUN apt-get -qq update \
    && DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes --no-install-recommends postgresql \
    && ln -s /usr/lib/postgresql/*/bin/* /usr/local/bin/ \
    && mkdir --parents /var/lib/postgresql /docker-entrypoint-initdb.d
COPY postgres.sh /usr/local/bin/postgres.sh
VOLUME /var/lib/postgresql
STOPSIGNAL SIGINT
ENTRYPOINT ["sh", "/usr/local/bin/postgres.sh"]
