#!/usr/bin/env bash
# Sets up an environment and runs ISARA on the real model and the seeds of configs/quickstart.
# The same command again resumes. Arguments are flags of isara_jax.main; paths in them are
# relative to the repository root.
set -euo pipefail

source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

prepare_environment runtime
cd "$root"
exec "$venv/bin/python" -m isara_jax.main --flagfile=configs/quickstart.flags "$@"
