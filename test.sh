#!/usr/bin/env bash
# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
set -euo pipefail
cd "$(dirname "$0")"

usage() {
  cat <<'END'
Usage: ./test.sh [--keep] [PART [ARGUMENT ...]]

Runs every part, or one:
  unit [PYTEST ARGUMENT ...]         the pure parts, and the repository itself
  lint                               ansible-lint, yamllint, shellcheck, antsibull-changelog, antsibull-docs
  sanity [ANSIBLE-TEST ARGUMENT ...] ansible-test sanity on the collection as it would be published
  integration [PYTEST ARGUMENT ...]  modules and plugins on real daemons, disks and connections
  molecule [SCENARIO ...]            the roles, in scenarios; kernel builds guest kernels and boots them, vm takes a fresh machine
  quickstart [PYTEST ARGUMENT ...]   run.sh from end to end

What is missing on a Debian machine is installed, which needs root. The last line counts what passed and failed.

In the environment, KERNEL_PROFILES=docker keeps molecule kernel to one guest kernel instead of four, at ten minutes each, and
SCENARIOS="default kernel" names the scenarios instead of all; vm takes half an hour.

  --keep   leave what the tests made in Docker (t-..., nested-kata-test-..., images), and their scratch directory
  --help   show this
END
}

readonly PARTS=(unit lint sanity integration molecule quickstart)
readonly STATE=$PWD/tests/output # what the next run finds ready; ignored by git, and apart from .run, which run.sh --remove removes
readonly VENV=$STATE/venv
readonly BASE_IMAGE=debian:trixie-slim
MARK=$(printf %s "$(pwd -P)" | sha256sum | head -c 6) # in the names of what the tests of this checkout make in Docker, as in tests/playing.py
readonly MARK
readonly ALL_KERNEL_PROFILES=stock,docker,netsim,nested
export KERNEL_PROFILES=${KERNEL_PROFILES:-$ALL_KERNEL_PROFILES} # that the scenario kernel builds and boots, ten minutes each

keep=false
passed=0
failed=0
left_out=() # what could not be tested here, and because of what
again=()    # the commands that repeat what failed
broken=()   # the tests that failed, and how, for the end of a long log
scratch=
docker_before= # what Docker held before the tests; empty until they use Docker
dockerd_pid=   # set where dockerd was started here

main() {
  case ${1-} in
    --help | -h) usage; return 0 ;;
    --keep) keep=true; shift ;;
  esac
  local part=${1-}
  if [[ -n $part && " ${PARTS[*]} " != *" $part "* ]]; then
    echo "test.sh: there is no part $part; there are: ${PARTS[*]}" >&2
    return 2
  fi
  trap cleanup EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  mkdir -p "$STATE"
  scratch=$(mktemp -d /tmp/nested-kata-test.XXXXXX)
  prepare_python
  if [[ -n $part ]]; then
    run_part "$@"
  else
    for part in "${PARTS[@]}"; do run_part "$part"; done
  fi
  tidy
  conclude
}

# --- parts: each adds to passed and failed, and returns 0 ---

part_unit() {
  prepare_compression
  run_pytest unit tests/unit "$@"
}

part_lint() {
  local scripts
  mapfile -t scripts < <(files_of_the_collection | while read -r file; do if head -c 40 "$file" | grep -qaE '^#!.*\b(ba|da)?sh$'; then echo "$file"; fi; done)
  lint ansible-lint --nocolor
  lint yamllint --strict .
  lint shellcheck "${scripts[@]}"
  lint antsibull-changelog lint
  lint antsibull-docs lint-collection-docs --plugin-docs --skip-rstcheck .
}

part_sanity() {
  local collection=$scratch/ansible_collections/nested/kata home=$STATE/sanity status=0
  if ! unpack_collection "$collection"; then
    fail "building the collection" "ansible-galaxy collection build --output-path /tmp"
    return 0
  fi
  make_sanity_home "$home"
  (cd "$collection" && HOME=$home PATH=$VENV/bin:$home/bin:/usr/sbin:/usr/bin:/sbin:/bin ansible-test sanity --color no --lint --junit "$@") \
    2>"$scratch/sanity.log" || status=$?
  if [[ $status -ne 0 ]]; then sed -n '/^\(FATAL\|Traceback\)/,$p' "$scratch/sanity.log"; fi
  count sanity "$status" "$collection"/tests/output/junit/*.xml
}

part_integration() {
  prepare_compression
  prepare_kernel_tools
  prepare_docker integration || return 0
  # A file at a time on each of two workers: the tests of one share daemons and disks of their own, and much of their time is waiting.
  run_pytest integration tests/integration --numprocesses 2 --dist loadfile "$@"
}

part_molecule() {
  local scenarios=("$@") scenario file status
  if [[ $# -eq 0 ]]; then
    for file in molecule/*/molecule.yml; do
      scenario=$(basename "$(dirname "$file")")
      if [[ -n ${SCENARIOS-} && " $SCENARIOS " != *" $scenario "* ]]; then
        left_out+=("molecule $scenario, as SCENARIOS says")
      elif [[ -e $file ]]; then
        scenarios+=("$scenario")
      fi
    done
  fi
  if [[ ${#scenarios[@]} -eq 0 ]]; then
    fail "there is no scenario: molecule/*/molecule.yml matches nothing" "./test.sh molecule"
    return 0
  fi
  prepare_compression
  prepare_docker molecule || return 0
  for scenario in "${scenarios[@]}"; do
    if [[ $scenario == vm || $scenario == kernel ]]; then prepare_emulator; fi
    if [[ $scenario == kernel ]]; then
      if [[ $(tr , '\n' <<<"$KERNEL_PROFILES" | sort) != $(tr , '\n' <<<"$ALL_KERNEL_PROFILES" | sort) ]]; then left_out+=("molecule kernel: of $ALL_KERNEL_PROFILES only $KERNEL_PROFILES, as KERNEL_PROFILES says"); fi
    fi
    status=0
    PYTEST_ADDOPTS="--junitxml=$scratch/molecule-$scenario.xml" molecule test --scenario-name "$scenario" || status=$?
    if [[ $status -eq 0 ]]; then passed=$((passed + 1)); fi # the playbooks, beside the tests of the verifier
    count "molecule $scenario" "$status" "$scratch/molecule-$scenario.xml"
  done
}

part_quickstart() {
  if [[ ! -d tests/quickstart ]]; then
    fail "there is no directory tests/quickstart" "./test.sh quickstart"
    return 0
  fi
  prepare_docker quickstart || return 0
  run_pytest quickstart tests/quickstart "$@"
}

run_part() {
  local part=$1 passed_before=$passed failed_before=$failed began=$SECONDS
  shift
  printf '\n=== %s (%s)\n' "$part" "$(date +%T)"
  "part_$part" "$@"
  printf -- '--- %s: %d passed, %d failed in %d s\n' "$part" $((passed - passed_before)) $((failed - failed_before)) $((SECONDS - began))
}

conclude() {
  if [[ ${#left_out[@]} -gt 0 || ${#again[@]} -gt 0 ]]; then echo; fi
  if [[ ${#broken[@]} -gt 0 ]]; then printf 'FAILED: %s\n' "${broken[@]}"; fi
  if [[ ${#left_out[@]} -gt 0 ]]; then printf 'left out: %s\n' "${left_out[@]}"; fi
  if [[ ${#again[@]} -gt 0 ]]; then printf 'failed; to repeat: %s\n' "${again[@]}" | sort --unique; fi
  printf '\n%d passed, %d failed\n' "$passed" "$failed"
  [[ $failed -eq 0 && $passed -gt 0 ]]
}

fail() { # what, the command to repeat it
  failed=$((failed + 1))
  broken+=("$1")
  again+=("$2")
  printf 'FAILED: %s\n' "$1"
}

lint() { # a command that is silent about what is well
  local output
  if output=$("$@" 2>&1); then
    echo "ok: $1"
    passed=$((passed + 1))
  else
    printf '%s\n' "$output"
    fail "$1" "./test.sh lint"
  fi
}

run_pytest() { # part, directory, arguments of pytest: those that name files take the place of the directory
  local part=$1 where=("$2") argument status=0
  shift 2
  for argument in "$@"; do
    if [[ -e ${argument%%::*} ]]; then where=(); fi
  done
  pytest "${where[@]}" --basetemp="$scratch/$part" --junitxml="$scratch/$part.xml" "$@" || status=$?
  count "$part" "$status" "$scratch/$part.xml"
}

count() { # part, exit status of what wrote the files, junit files: a run that died counts as a failure, though its files say nothing of it
  local part=$1 status=$2 name number failures=0
  shift 2
  while read -r number name; do
    case $number in
      passed) passed=$((passed + name)) ;;
      failed) failures=$name ;;
      broken) broken+=("$part: $name") ;;
      skipped) left_out+=("$part: $name") ;;
    esac
  done < <(python - "$@" <<'END'
import re
import sys
import xml.etree.ElementTree as tree

counts = {"passed": 0, "failed": 0}
for path in sys.argv[1:]:
    try:
        cases = list(tree.parse(path).iter("testcase"))
    except (OSError, tree.ParseError):
        continue
    for case in cases:
        skipped = case.find("skipped")
        broken = [found for found in map(case.find, ("failure", "error")) if found is not None]
        if broken:
            counts["failed"] += 1
            print("broken", case.get("name"), " ".join((broken[0].get("message") or broken[0].text or "").split())[:400])
        elif skipped is None:
            counts["passed"] += 1
        else:
            reason = " ".join((skipped.get("message") or skipped.text or "").split())
            if reason != "No tests applicable.":  # ansible-test has no file of that kind to look at
                print("skipped", case.get("name"), "because", re.sub("^Skipping sanity test .* because ", "", reason))
for name, number in counts.items():
    print(name, number)
END
  )
  if [[ $failures -eq 0 && $status -ne 0 ]]; then
    failures=1
    broken+=("$part: ended with status $status, see above")
  fi
  failed=$((failed + failures))
  if [[ $failures -gt 0 ]]; then again+=("./test.sh $part"); fi
}

# --- sanity ---

files_of_the_collection() {
  local file
  git ls-files --cached --others --exclude-standard --deduplicate | while read -r file; do
    if [[ -f $file && ! -L $file ]]; then echo "$file"; fi
  done
}

unpack_collection() { # the artifact that users get, in a tree as ansible-test wants it, beside the collections it may import
  local source=$scratch/source collections=$scratch/ansible_collections
  rm -rf "$source" "$collections" \
    && mkdir -p "$source" "$1" "$collections/community" \
    && files_of_the_collection | tar -cf - -T - | tar -xf - -C "$source" \
    && ansible-galaxy collection build --force --output-path "$scratch" "$source" >/dev/null \
    && tar -xzf "$scratch"/nested-kata-*.tar.gz -C "$1" \
    && git -C "$1" init --quiet \
    && ln -s "$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/ansible_collections/community/docker" "$collections/community/docker"
}

make_sanity_home() { # where ansible-test keeps a virtual environment for each of its tests, so that only the first run makes them
  local home=$1 minor interpreter
  # It would fetch pip from a site of its own; the pip that comes with Python does as well.
  mkdir -p "$home/.ansible/test/cache"
  printf 'import ensurepip\nensurepip.bootstrap()\n' >"$home/.ansible/test/cache/get_pip_24_2.py"
  # It takes any python3.N on PATH for one that works, also a shim of pyenv with nothing behind it.
  rm -rf "${home:?}/bin"
  mkdir "$home/bin"
  for minor in 8 9 10 11 12 13; do
    if interpreter=$(working_python "$minor"); then ln -s "$interpreter" "$home/bin/python3.$minor"; fi
  done
}

working_python() { # minor version
  local candidate
  while read -r candidate; do
    if "$candidate" -c "import ensurepip, sys, venv; sys.exit(sys.version_info[:2] != (3, $1))" >/dev/null 2>&1; then
      echo "$candidate"
      return 0
    fi
  done < <(type -aP "python3.$1"; compgen -G "$HOME/.pyenv/versions/3.$1.*/bin/python3.$1")
  return 1
}

# --- what the tests stand on ---

die() {
  echo "test.sh: $1" >&2
  exit 1
}

missing() { # pairs of command and Debian package: prints the packages whose commands are not here
  local pair
  for pair in "$@"; do
    if ! command -v "${pair%%:*}" >/dev/null; then echo "${pair#*:}"; fi
  done
}

install_packages() { # none or more
  if [[ $# -eq 0 ]]; then return 0; fi
  local policy=/usr/sbin/policy-rc.d policy_made=false status=0
  if [[ $EUID -ne 0 ]]; then die "$* must be installed: run this as root"; fi
  if ! command -v apt-get >/dev/null; then die "install what brings $* on Debian: there is no apt-get here"; fi
  echo "installing $*"
  if [[ ! -e $policy ]]; then # no sshd and no dockerd started by their packages
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    policy_made=true
  fi
  { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends "$@"; } >"$scratch/apt.log" 2>&1 </dev/null || status=$?
  if $policy_made; then rm -f "$policy"; fi
  if [[ $status -ne 0 ]]; then
    tail -n 20 "$scratch/apt.log" >&2
    die "apt-get install $* failed"
  fi
}

prepare_python() {
  local python=/usr/bin/python3 packages wanted
  export PATH=$VENV/bin:$PATH:/usr/sbin:/sbin
  mapfile -t packages < <(missing git:git)
  if ! "$python" -c 'import ensurepip' 2>/dev/null; then packages+=(python3-venv); fi
  install_packages "${packages[@]}"
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || die "$python is older than 3.11"
  wanted=$("$python" --version; cat requirements.txt requirements-test.txt)
  if [[ $(cat "$VENV/made-from" 2>/dev/null) != "$wanted" ]]; then
    echo "making $VENV"
    rm -rf "$VENV"
    "$python" -m venv "$VENV"
    "$VENV/bin/pip" install --quiet --disable-pip-version-check --requirement requirements-test.txt
    printf '%s\n' "$wanted" >"$VENV/made-from"
  fi
}

prepare_compression() { # for release archives
  local packages
  mapfile -t packages < <(missing zstd:zstd xz:xz-utils)
  install_packages "${packages[@]}"
}

prepare_kernel_tools() { # to configure and build Linux, and for the sources and signatures of the tests
  local packages
  mapfile -t packages < <(missing make:make gcc:gcc ld:binutils flex:flex bison:bison bc:bc perl:perl gzip:gzip xz:xz-utils dpkg-deb:dpkg gpg:gpg gpgv:gpgv)
  if [[ ! -e /usr/include/gelf.h ]]; then packages+=(libelf-dev); fi
  if ! compgen -G '/usr/include/*/openssl/opensslconf.h' >/dev/null; then packages+=(libssl-dev); fi
  install_packages "${packages[@]}"
}

prepare_emulator() { # to boot what was built
  local packages
  mapfile -t packages < <(missing qemu-system-x86_64:qemu-system-x86 mmdebstrap:mmdebstrap mkfs.ext4:e2fsprogs)
  install_packages "${packages[@]}"
}

prepare_docker() { # part: counts as one failure of it where there is no Docker to be had
  local packages
  mapfile -t packages < <(missing dockerd:docker.io iptables:iptables btrfs:btrfs-progs mkfs.ext4:e2fsprogs mkfs.xfs:xfsprogs losetup:mount strace:strace sudo:sudo \
    ssh:openssh-client sshd:openssh-server openssl:openssl)
  install_packages "${packages[@]}"
  mapfile -t packages < <(missing docker:docker-cli) # Debian 13 has split it from docker.io
  install_packages "${packages[@]}"
  if ! start_docker; then
    fail "dockerd does not answer" "./test.sh $1"
    return 1
  fi
  if [[ -z $docker_before ]]; then docker_before=$(docker_holds); fi
  if ! prepare_base_image; then
    fail "there is no image $BASE_IMAGE, and neither a registry nor a Debian mirror to get it from" "./test.sh $1"
    return 1
  fi
}

start_docker() {
  local deadline=$((SECONDS + 60))
  if docker version >/dev/null 2>&1; then return 0; fi
  if [[ -d /run/systemd/system ]]; then
    systemctl start docker || return 1
  else
    setsid dockerd >"$STATE/dockerd.log" 2>&1 </dev/null &
    dockerd_pid=$!
  fi
  until docker version >/dev/null 2>&1; do
    if [[ $SECONDS -ge $deadline ]] || { [[ -n $dockerd_pid ]] && ! kill -0 "$dockerd_pid" 2>/dev/null; }; then
      if [[ -n $dockerd_pid ]]; then tail -n 20 "$STATE/dockerd.log"; fi
      return 1
    fi
    sleep 0.2
  done
}

prepare_base_image() { # the role machine_image has this with every choice; the tests need it also where they do without the role
  local archive=$STATE/${BASE_IMAGE##*:}.tar
  if docker image inspect "$BASE_IMAGE" >/dev/null 2>&1; then return 0; fi
  if [[ ! -e $archive ]]; then
    if timeout 300 docker pull --quiet "$BASE_IMAGE" >/dev/null 2>&1; then return 0; fi
    echo "making $BASE_IMAGE"
    if ! command -v mmdebstrap >/dev/null; then install_packages mmdebstrap; fi
    mmdebstrap --quiet --format=tar --variant=minbase trixie "$archive.part" && mv "$archive.part" "$archive" || return 1
  fi
  docker import --change 'CMD ["bash"]' "$archive" "$BASE_IMAGE" >/dev/null
}

# --- leaving the machine as it was ---

docker_holds() { # a line for each thing: kind and name
  docker container ls --all --format 'container {{.Names}}'
  docker network ls --format 'network {{.Name}}'
  docker volume ls --format 'volume {{.Name}}'
  docker image ls --format 'image {{.Repository}}:{{.Tag}}'
}

tidy() {
  local kind name target
  if $keep; then return 0; fi
  if [[ -n $docker_before ]]; then
    while read -r kind name; do
      case $kind-$name in
        container-t-*"$MARK"* | container-nested-kata-test-*"$MARK" | container-t-mx-* | container-t-molecule-* | container-t-foreign)
          docker container rm --force --volumes "$name"
          ;;
        network-t-*"$MARK"* | network-t-foreign | volume-t-*"$MARK"* | volume-t-foreign) docker "$kind" rm "$name" ;;
        image-t-*"$MARK"* | image-t-mx/* | image-t-foreign:* | image-nested-kata* | image-"$BASE_IMAGE") docker image rm --force "$name" ;;
      esac
    done < <(docker_holds | grep -vxF "$docker_before") >/dev/null 2>&1 || true
  fi
  detach_loops
  findmnt --raw --noheadings --output TARGET | grep "^$scratch/" | sort --reverse | while read -r target; do umount "$target"; done || true
}

detach_loops() {
  local device file
  losetup --raw --noheadings --list --output NAME,BACK-FILE 2>/dev/null | while read -r device file; do
    if [[ $file == "$scratch"/* ]]; then losetup --detach "$device"; fi
  done || true
}

cleanup() {
  local status=$?
  trap - EXIT INT TERM
  tidy
  if [[ -n $dockerd_pid ]]; then
    kill "$dockerd_pid" 2>/dev/null || true
    wait "$dockerd_pid" 2>/dev/null || true
  fi
  if ! $keep && [[ -n $scratch ]]; then rm -rf "$scratch"; fi
  exit "$status"
}

main "$@"
