#!/bin/sh
# Builds .venv from the pinned and hashed requirements; `make` runs it when those are newer than .venv/ready.
# The first argument names the Python to use; without it the first fitting one on PATH is taken.
set -eu
cd "$(dirname "$0")/.."

# A name on PATH may be a shim that only prints an error, so each candidate must run.
fits() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' >/dev/null 2>&1; }
makes_venvs() { "$1" -c 'import ensurepip, venv' >/dev/null 2>&1; }

without_venv=
if [ ! -x .venv/bin/python ] || ! fits .venv/bin/python; then
  python=
  for candidate in ${1:-python3.11 python3.12 python3.13 python3}; do
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
    echo "hookseal: needs Python 3.11, 3.12 or 3.13, and found none that runs (tried:" \
      "${1:-python3.11 python3.12 python3.13 python3})." \
      "Install one, or name it: make PYTHON=/path/to/python3.12 ..." >&2
    exit 1
  fi
  echo "building .venv with $("$python" --version), about a minute, once"
  "$python" -m venv --clear .venv
else
  echo "bringing .venv up to date"
fi

export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1
# The lock is complete. With --no-deps pip looks at nothing else, so no newer release can get in its way.
.venv/bin/python -m pip install --quiet --no-deps --require-hashes --requirement requirements/dev.txt
.venv/bin/python -m pip install --quiet --no-deps --no-build-isolation --editable .
.venv/bin/python -m pip check --quiet
touch .venv/ready
