#!/usr/bin/env bash
# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
set -euo pipefail

usage() {
  cat <<'USAGE'
Usage: ./run.sh [--quick] [-e VAR=VALUE]...  a root prompt in a container in a Docker daemon of its own
       ./run.sh [-e VAR=VALUE]... -- CMD...  run a docker command in that daemon instead: ./run.sh -- ps -a
       ./run.sh --remove                     remove all that it made
       ./run.sh --help

Makes, on this machine: a proxy container (kata-in-docker), in it an instance (kata: systemd and dockerd on a btrfs
disk of its own), and proves that the Docker in the instance does real work. Then it prints what runs where and ends
at a prompt three levels down; without a terminal it ends after the table. The first time takes a few minutes, the
next time seconds. It may be interrupted at any moment and started again.

  --quick        take the kernel that comes with Kata, which has no btrfs, and an ext4 disk, instead of compiling one
  -e VAR=VALUE   a variable of the roles, handed to Ansible, for example
                 -e machine_image_mirror=http://mirror.example.org/debian
  -- CMD         the arguments of `docker` in the instance; its exit status is that of run.sh
  --remove       removes containers, volumes (with all images and disks in them), networks, images, loop devices and
                 files that run.sh made; packages stay, and so does Docker itself

Needs: root or sudo, Python 3.11 or newer, and, where Docker is missing, a Debian to install it from.
USAGE
}

die() {
  echo "run.sh: $*" >&2
  exit 1
}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
state=$here/.run
arguments=("$@")
remove=
command=
variables=()
base=debian:trixie-slim

while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) usage; exit 0 ;;
    --remove) remove=1; shift ;;
    --quick) variables+=(-e kata_runtime_kernel=stock); shift ;;
    -e)
      [[ ${2-} == *=* ]] || die "-e takes VAR=VALUE, found '${2-}': see ./run.sh --help"
      variables+=(-e "$2")
      if [[ $2 == machine_image_base=* ]]; then base=${2#*=}; fi
      shift 2
      ;;
    --)
      shift
      [ "${1-}" != docker ] || shift
      [ $# -gt 0 ] || die "-- takes a docker command, found none: see ./run.sh --help"
      command=1
      break
      ;;
    *) die "unknown argument '$1': see ./run.sh --help" ;;
  esac
done

if [ "$(id -u)" -ne 0 ]; then
  command -v sudo >/dev/null || die "needs root, and there is no sudo: run it as root"
  exec sudo -- "${BASH_SOURCE[0]}" "${arguments[@]}"
fi

# A command's output is its own: what we have to say goes to stderr then.
if [ -n "$command" ]; then exec 3>&1 >&2; else exec 3>&1; fi

trap 'echo; echo "Interrupted. Nothing is lost: ./run.sh goes on from here, ./run.sh --remove takes it all away."; exit 130' INT TERM

# Runs a command whose output is kept for the case that it fails, and says every ten seconds that it is under way.
quietly() {
  local name=$1 log=$state/log pid status=0 from=$SECONDS
  shift
  echo "  - $name"
  "$@" >"$log" 2>&1 &
  pid=$!
  while kill -0 "$pid" 2>/dev/null; do
    sleep 1
    if (((SECONDS - from) % 10 == 9)); then echo "    ... $name, $((SECONDS - from)) s"; fi
  done
  wait "$pid" || status=$?
  if [ "$status" -ne 0 ]; then
    tail -n 20 "$log" >&2
    die "$name failed: see above, and $log"
  fi
}

find_python() {
  local python
  for python in python3 python3.13 python3.12 python3.11; do
    if command -v "$python" >/dev/null && "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
      echo "$python"
      return
    fi
  done
  die "needs Python 3.11 or newer, found $(python3 --version 2>&1 || echo none): install it"
}

# The virtual environment with Ansible, made anew only when what is to be in it has changed.
prepare_ansible() {
  local python wanted
  python=$(find_python)
  wanted=$("$python" --version; cat "$here/requirements.txt")
  [ "$(cat "$state/venv/made-of" 2>/dev/null)" != "$wanted" ] || return 0
  echo "==> Ansible in a virtual environment, $state/venv"
  rm -rf "$state/venv"
  if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    command -v apt-get >/dev/null || die "$python has no venv module: install it"
    quietly "python3-venv, which this Python lacks" sh -c 'apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends python3-venv'
  fi
  "$python" -m venv "$state/venv"
  quietly "Ansible and its collections from PyPI (half a minute)" "$state/venv/bin/pip" install --no-compile --disable-pip-version-check --requirement "$here/requirements.txt"
  echo "$wanted" >"$state/venv/made-of"
}

play() {
  local status=0
  ANSIBLE_CONFIG=$here/ansible.cfg ANSIBLE_STDOUT_CALLBACK=${ANSIBLE_STDOUT_CALLBACK-nested.kata.steps} \
    ANSIBLE_LOCALHOST_WARNING=false PYTHONWARNINGS=ignore \
    "$state/venv/bin/ansible-playbook" --inventory "$here/inventory.yml" "${variables[@]}" "$@" </dev/null || status=$?
  if [ "$status" -ne 0 ]; then exit "$status"; fi
}

# What the last complete run was made of: where nothing differs and the inner daemon answers, there is nothing to do.
fingerprint() {
  (cd "$here" && { echo "${variables[*]}"; find requirements.txt inventory.yml roles plugins playbooks -type f ! -name '*.pyc' -print0 | sort -z | xargs -0 sha256sum; } | sha256sum)
}

stands() {
  [ "$(cat "$state/stands" 2>/dev/null)" = "$(fingerprint)" ] && docker exec kata-in-docker docker exec kata docker version >/dev/null 2>&1
}

mkdir -p "$state"
exec 9>"$state/lock"
if command -v flock >/dev/null; then flock --nonblock 9 || die "another run.sh is at work in $here: wait for it"; fi

prepare_ansible

if [ -n "$remove" ]; then
  play "$here/playbooks/remove.yml" -e nested_kata_purge=true
  rm -rf "$state"
  exit 0
fi

if ! stands; then
  rm -f "$state/stands"
  play "$here/playbooks/quickstart.yml"
  fingerprint >"$state/stands"
elif [ -z "$command" ]; then
  play "$here/playbooks/status.yml"
fi
exec 9>&-
trap - INT TERM

if [ -n "$command" ]; then
  flags=(-i)
  if [ -t 0 ] && [ -t 3 ]; then flags=(-i -t); fi
  exec docker exec "${flags[@]}" kata-in-docker docker exec "${flags[@]}" kata docker "$@" >&3 3>&-
fi
if [ -t 0 ] && [ -t 1 ]; then
  echo "A container in Docker in the instance: 'exit' leaves it, everything else stays."
  exec docker exec -it kata-in-docker docker exec -it kata docker run --rm -it "$base" bash
fi
