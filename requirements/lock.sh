#!/usr/bin/env bash
# Pins every extra, and development, to exact versions with hashes. Run it through `make lock`.
set -euo pipefail
cd "$(dirname "$0")/.."
compile() { # file, then what uv shall resolve
  local file=$1
  shift
  uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
    --no-header --custom-compile-command "make lock" "$@" --output-file "requirements/$file" pyproject.toml
}
compile base.txt
compile migrate.txt --extra migrate
compile embedded.txt --extra embedded
compile dev.txt --extra embedded --group dev
