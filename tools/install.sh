#!/bin/sh
# Installs what a lock names, and nothing else, into the environment of a Python:
#   sh tools/install.sh .venv/bin/python requirements/embedded.txt
set -eu
# A lock is complete. With --no-deps pip looks at nothing else, so no newer release can get in its way; a package that
# has to be built would bring the newest version of what builds it, so wheels only.
exec "$1" -m pip --disable-pip-version-check install --quiet --no-deps --require-hashes --only-binary :all: \
  --requirement "$2"
