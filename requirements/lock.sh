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
compile base.txt pyproject.toml
compile migrate.txt pyproject.toml --extra migrate
compile embedded.txt pyproject.toml --extra embedded
compile dev.txt pyproject.toml --extra embedded --group dev
# What builds the package in the image, in the versions that development has.
compile build.txt --constraint requirements/dev.txt - <<<hatchling
