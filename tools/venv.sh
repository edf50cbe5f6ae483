#!/bin/sh
# Builds .venv from the pinned and hashed requirements.
# `make` runs it when they are newer than .venv/demo or .venv/ready.
# The first argument names what .venv is for: `demo`, run hookseal, or `ready`, run the tests and the linters too.
# The second names the Python to use; without it the newest one on PATH is taken, since newer ones deliver more.
# 3.14 comes last: there is no wheel of Valkey for it, so the demo and the tests would need one of the system.
set -eu
cd "$(dirname "$0")/.."
pythons='python3.13 python3.12 python3.11 python3.14 python3'
stage=$1
shift

# A name on PATH may be a shim that only prints an error, so each candidate must run.
fits() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' >/dev/null 2>&1; }
makes_venvs() { "$1" -c 'import ensurepip, venv' >/dev/null 2>&1; }

# A build that was killed may have left no pip, or half of one.
is_whole() { fits "$1" && "$1" -m pip --version >/dev/null 2>&1; }
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1

without_venv=
if ! is_whole .venv/bin/python; then
  python=
  for candidate in ${1:-$pythons}; do
    fits "$candidate" || continue
    if makes_venvs "$candidate"; then
      python=$candidate
      break
    fi
    without_venv=${without_venv:-$candidate}
  done
  if [ -z "$python" ] && [ -n "$without_venv" ]; then
    version=$("$without_venv" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    echo "hookseal: $without_venv cannot make virtual environments: install python$version-venv" \
      "(Debian and Ubuntu: apt-get install python$version-venv)" >&2
    exit 1
  elif [ -z "$python" ]; then
    echo "hookseal: needs Python 3.11, 3.12, 3.13 or 3.14, and found none that runs (tried:" \
      "${1:-$pythons})." \
      "Install one, or name it: make PYTHON=/path/to/python3.12 ..." >&2
    exit 1
  fi
  echo "building .venv with $("$python" --version), about a minute, once"
  "$python" -m venv --clear .venv
else
  echo "bringing .venv up to date"
fi

# All that is in .venv moves together: a linter of an older lock need not fit the newer packages of the demo.
if [ "$stage" = demo ] && [ ! -e .venv/ready ]; then
  lock=embedded
else
  lock=dev
fi
# The first one brings a pip of its own: that of Python 3.11 takes twice the time over the second.
sh tools/install.sh .venv/bin/python requirements/build.txt
sh tools/install.sh .venv/bin/python "requirements/$lock.txt"
.venv/bin/python -m pip install --quiet --no-index --no-deps --no-build-isolation --editable .
if ! problems=$(.venv/bin/python -m pip check); then
  echo "$problems" >&2
  echo "hookseal: what is in .venv does not fit together. Run \`make clean\` and try again; if that does not help," \
    "requirements/$lock.txt does not fit pyproject.toml: run \`make lock\` and commit what it writes" >&2
  exit 1
fi
touch .venv/demo
[ "$lock" = embedded ] || touch .venv/ready
