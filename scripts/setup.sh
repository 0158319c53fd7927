#!/usr/bin/env bash
# Installs what is missing to build and test: Debian packages (with sudo when not root) and the virtual environment .venv.
# Idempotent, and fast when nothing is missing. Where it cannot install, it says in one sentence what to do by hand.
# Cost on a fresh machine: about 100 MB of Debian packages and the torch wheel.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly requirements=scripts/requirements.txt
readonly venv=.venv

say() { printf 'setup: %s\n' "$*" >&2; }
stop() {
  say "$*"
  exit 1
}

# One line a package: Debian's name, then what shows that it is there (a command, a header, a library, a
# Python module).
packages() {
  cat <<'TABLE'
g++                     command g++
cmake                   command cmake
ninja-build             command ninja
ccache                  command ccache
pkg-config              command pkg-config
libhwy-dev              header  hwy/highway.h
libsentencepiece-dev    header  sentencepiece_trainer.h
libcli11-dev            header  CLI/CLI.hpp
libtomlplusplus-dev     header  toml++/toml.h
nlohmann-json3-dev      header  nlohmann/json.hpp
libxxhash-dev           header  xxhash.h
zlib1g-dev              header  zlib.h
libgtest-dev            header  gtest/gtest.h
libbenchmark-dev        header  benchmark/benchmark.h
libgoogle-perftools-dev library libtcmalloc_minimal.so
clang-format            command clang-format
python3-venv            module  ensurepip
TABLE
}

is_there() {
  local kind=$1 name=$2 folder
  case $kind in
    command) command -v "$name" ;;
    header) for folder in /usr/include /usr/local/include; do [[ -e $folder/$name ]] && return 0; done; return 1 ;;
    library) compgen -G "/usr/lib/*/$name" || compgen -G "/usr/lib*/$name" || compgen -G "/usr/local/lib/$name" ;;
    module) [[ -x $venv/bin/python ]] || python3 -c "import $name" ;;
  esac >/dev/null 2>&1
}

missing_packages() {
  local package kind name
  while read -r package kind name; do
    is_there "$kind" "$name" || echo "$package"
  done < <(packages)
}

apt() {
  local as_root=()
  if [[ $EUID -ne 0 ]]; then
    as_root=(sudo)
    [[ -t 0 ]] || as_root=(sudo -n)
  fi
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 -qq "$@" >&2
}

install_packages() {
  local missing
  missing=$(missing_packages | tr '\n' ' ')
  missing=${missing% }
  [[ -z $missing ]] && return
  local by_hand="install these packages by hand and run it again: apt-get install $missing"
  command -v apt-get >/dev/null || stop "this system has no apt-get; install the equivalents of these Debian packages: $missing"
  [[ $EUID -eq 0 ]] || command -v sudo >/dev/null || stop "not root and no sudo; as root, $by_hand"
  say "installing $missing"
  # The package lists of a fresh machine are empty or old: the second try comes after an update. Lists of other
  # repositories that cannot be read do not matter as long as the packages are found.
  # shellcheck disable=SC2086
  if ! apt install -y --no-install-recommends $missing 2>/dev/null; then
    apt update || true
    apt install -y --no-install-recommends $missing || stop "apt-get could not install everything; $by_hand"
  fi
  [[ -z $(missing_packages) ]] || stop "still missing after apt-get: $(missing_packages | tr '\n' ' ')"
}

find_python() {
  local name
  for name in python3 python3.14 python3.13 python3.12 python3.11; do
    if "$name" -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
      command -v "$name"
      return
    fi
  done
  stop "no Python of version 3.11 or newer with the venv module; install python3 and python3-venv"
}

# Prints the requirements that the environment does not meet; local version labels such as +cpu do not count.
unmet_requirements() {
  "$venv/bin/python" - "$requirements" <<'PYTHON'
import importlib.metadata, sys
for line in open(sys.argv[1]):
    name, _, wanted = line.split("#")[0].strip().partition("==")
    if not name:
        continue
    try:
        found = importlib.metadata.version(name).split("+")[0]
    except importlib.metadata.PackageNotFoundError:
        found = None
    if found != wanted:
        print(f"{name}=={wanted}")
PYTHON
}

install_environment() {
  if ! "$venv/bin/python" -c '' 2>/dev/null; then
    local python
    python=$(find_python)
    say "making $venv with $python"
    rm -rf "$venv"
    "$python" -m venv "$venv"
  fi
  [[ -z $(unmet_requirements) ]] && return
  say "installing the Python packages of $requirements into $venv"
  "$venv/bin/python" -m pip install --disable-pip-version-check --quiet -r "$requirements" ||
    stop "pip could not install everything; run it by hand where there is a network: $venv/bin/pip install -r $requirements"
}

# Debian 12's CMake is new enough; where the system's is older, the environment gets its own (it comes first in PATH).
install_cmake() {
  local version
  version=$(PATH="$PWD/$venv/bin:$PATH" cmake --version 2>/dev/null | sed -n '1s/.*version //p')
  [[ $(printf '3.25\n%s\n' "${version:-0}" | sort -V | head -n 1) == 3.25 ]] && return
  say "cmake ${version:-(none)} is older than 3.25; installing a newer one into $venv"
  "$venv/bin/python" -m pip install --disable-pip-version-check --quiet 'cmake>=3.25,<5' ||
    stop "pip could not install cmake; install cmake 3.25 or newer by hand"
}

# Two set-ups at once would disturb each other.
exec 9<scripts/setup.sh
flock 9
install_packages
install_environment
install_cmake
