# The image of web, gateway, worker and beat; each is another command (broker/embedded/commands.py).
# The embedded servers of `make up` aren't in it.

FROM python:3.11-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /venv
COPY requirements.txt /build/
RUN /venv/bin/pip install --quiet --require-hashes --requirement /build/requirements.txt
ENV PATH=/venv/bin:$PATH
WORKDIR /keyturn
COPY . .
# Collecting needs no settings of the place where the image will run.
RUN KEYTURN_COLLECTING=1 KEYTURN_SECRET_KEY=only-while-building \
    python manage.py collectstatic --noinput --verbosity=0 \
    && python -m compileall -q /keyturn

FROM python:3.11-slim
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin keyturn
COPY --from=build /venv /venv
COPY --from=build /keyturn /keyturn
ENV PATH=/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp \
    KEYTURN_STATE_DIR=/nonexistent
WORKDIR /keyturn
USER 10001
# Behind the port that Compose publishes; web and gateway are the two that listen.
ENV GRANIAN_HOST=0.0.0.0 GRANIAN_PORT=8000 UVICORN_HOST=0.0.0.0 UVICORN_PORT=8080
EXPOSE 8000 8080
CMD ["granian", "--interface=wsgi", "--no-ws", "--blocking-threads=16", "--respawn-failed-workers", "--workers-kill-timeout=5s", "broker.wsgi:application"]
