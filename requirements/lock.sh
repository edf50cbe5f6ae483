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
compile dev.txt pyproject.toml --extra embedded --group dev
# The others are parts of it: nothing changes its version when `make test` follows `make demo`, or the other way round.
compile base.txt pyproject.toml --constraint requirements/dev.txt
compile migrate.txt pyproject.toml --extra migrate --constraint requirements/dev.txt
compile embedded.txt pyproject.toml --extra embedded --constraint requirements/dev.txt
# What installs and builds the package, in .venv and in the image.
printf '%s\n' editables hatchling pip | compile build.txt - --constraint requirements/dev.txt
