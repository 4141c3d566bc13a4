# One image for every role; the command says which: api, worker, scheduler, projector, …
FROM python:3.11-slim

ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PYTHONUNBUFFERED=1

# Nothing here needs root; data, where a role has any, lives in the one folder the user owns.
RUN useradd --create-home --home-dir /var/lib/ledgerq --uid 10001 ledgerq

COPY . /tmp/source
RUN pip install /tmp/source && rm -r /tmp/source

# A volume that is mounted there takes this owner over.
RUN install --directory --owner=ledgerq /var/lib/ledgerq/read-model /var/lib/ledgerq/objects

USER ledgerq
WORKDIR /var/lib/ledgerq
ENV LEDGERQ_DATA_DIR=/var/lib/ledgerq/data \
    LEDGERQ_LOG_FORMAT=json

EXPOSE 8084 9084
# SIGTERM (what `docker stop` sends) drains a worker before it ends.
STOPSIGNAL SIGTERM
ENTRYPOINT ["ledgerq"]
CMD ["up", "--host", "0.0.0.0"]
