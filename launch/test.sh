#!/usr/bin/env bash
# Sets up an environment and runs every check: format, lint, types, tests. Arguments go to
# pytest; ISARA_DATA names the folder of benchmark files for the tests that need them.
set -euo pipefail

source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

prepare_environment test
cd "$root"
"$venv/bin/ruff" format --check
"$venv/bin/ruff" check
"$venv/bin/mypy"
# A file to a process, the slow ones first (tests/conftest.py): most of the time is
# compilation, which uses one core.
exec "$venv/bin/python" -m pytest --numprocesses=auto \
  --dist=loadfile --no-loadscope-reorder "$@"
