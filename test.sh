#!/usr/bin/env bash
# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
set -euo pipefail
cd "$(dirname "$0")"

usage() {
  cat <<'END'
Usage: ./test.sh [--all] [--keep] [PART [ARGUMENT ...]]

Without a PART all of them run, some beside each other: about 30 minutes on two processors, of which a machine that has run
them before needs some less. With a PART only that one runs, and shows what it does as it goes:

  unit [PYTEST ARGUMENT ...]           1 min  unit tests and repository consistency checks
  lint [LINTER ...]                    1 min  ruff, ruff-format, mypy, yamllint, ansible-lint, shellcheck, reuse, antsibull-changelog,
                                              antsibull-docs
  sanity [ANSIBLE-TEST ARGUMENT ...]   3 min  ansible-test sanity on the collection as it would be published
  pythons [MINOR VERSION ...]          8 min  unit tests of what runs on targets, on each Python from 3.9 to 3.14 that is here (pyenv's too)
  integration [PYTEST ARGUMENT ...]   20 min  modules and plugins on real daemons, disks, kernel trees and connections
  molecule [SCENARIO ...]             10 min  the roles in containers (default); guest kernels built and booted (kernel, 15 min
                                              for the default profile, 85 min for all four); a fresh machine (vm, 40 min)
  quickstart [PYTEST ARGUMENT ...]    10 min  run.sh from end to end
  ansibles [MAJOR VERSION ...]        20 min  unit tests, hostile facts and run.sh with the Ansible releases after run.sh's own (13 and 14)

What is missing on a Debian machine is installed, which needs root. The last line counts what passed and failed.

Without --all, pythons and ansibles are left out, and molecule leaves out vm, and the guest kernel of the profile docker where
molecule/kernel/proven.json proves it for the same files. A scenario that is named always runs; molecule kernel takes all four
profiles, or those that KERNEL_PROFILES names in the environment (KERNEL_PROFILES=docker,netsim).

  --all    also what takes longer: all pairs of daemons, all fault points, Linux 6.1, all guest kernels, the fresh machine (3 hours)
  --keep   keep what the tests made in Docker (t-..., nested-kata-test-..., images), and their scratch directory
  --help   show this
END
}

readonly LINTERS=(ruff ruff-format mypy yamllint ansible-lint shellcheck reuse antsibull-changelog antsibull-docs)
readonly PARTS=(unit lint sanity pythons integration molecule quickstart ansibles)
# What runs beside each other. Within a lane one part follows the other. The first lane takes longest, so the others leave it the processor. It
# begins with lint and unit, since molecule has to wait for as long as integration holds the lock of the machine image.
readonly LANES=("lint unit molecule quickstart ansibles" "integration" "sanity pythons")
readonly NICENESS=10 # of all lanes but the first
readonly STATE=$PWD/tests/output # what the next run finds ready; ignored by git, and apart from .run, which run.sh --remove removes
readonly VENV=$STATE/venv
readonly BASE_IMAGE=debian:trixie-slim
readonly ALL_KERNEL_PROFILES=stock,docker,netsim,nested
readonly TARGET_PYTHONS=(9 10 11 12 13 14) # minor versions that targets may have
readonly LATER_ANSIBLES=(13 14)            # with ansible-core 2.20 and 2.21
readonly NEWER_PYTHONS=(14 13 12)          # minor versions that these need on a control node
MARK=$(printf %s "$(pwd -P)" | sha256sum | head -c 6) # in the names of what the tests of this checkout make in Docker, as in tests/support/ansible_runner.py
readonly MARK
readonly SHARED=/run/nested-kata-test # what all runs on this machine share: a lock, what Docker held before the first, and the PID of a dockerd that one started
readonly HEARTBEAT=60 # seconds between two lines that say what is at work

all=false
keep=false
scratch=
results=       # a file with a line for each thing to report: passed N, failed N, broken TEST, left_out WHAT, again COMMAND
shares_docker= # the process that holds the locks, of this checkout and of SHARED; empty until the tests use Docker
lanes_began=   # whether all parts run
lanes=()       # the processes of the lanes, each of a process group of its own

main() {
  while [[ ${1-} == -* ]]; do
    case $1 in
      --help | -h) usage; return 0 ;;
      --all) all=true ;;
      --keep) keep=true ;;
      *)
        echo "test.sh: unknown option $1: see ./test.sh --help" >&2
        return 2
        ;;
    esac
    shift
  done
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
  results=$scratch/results
  : >"$results"
  prepare_python
  if [[ -n $part ]]; then run_part "$@"; else run_all; fi
  leave_docker
  tidy
  conclude
}

run_all() {
  local lane part began=$SECONDS beat=0
  lanes_began=yes
  prepare_compression
  prepare_kernel_tools
  prepare_docker all || return 0
  echo "at work, up to three parts at a time; each shows its output when it ends"
  for lane in "${LANES[@]}"; do
    set -m # a process group of its own, in which SIGINT is not ignored
    run_lane "$lane" </dev/null &
    set +m
    lanes+=("$!")
  done
  while lane_works; do
    sleep 1
    if ((SECONDS - began >= beat + HEARTBEAT)); then
      beat=$((SECONDS - began))
      part=$(cd "$scratch" && compgen -G '*.running' | sed 's/.running$//' | paste -sd ' ')
      echo "... $(date +%T), at work for $((beat / 60)) min: ${part:-nothing}"
    fi
  done
  lanes=()
}

lane_works() { # dockerd, where it was started here, is a job of this shell too
  local lane
  for lane in "${lanes[@]}"; do
    if kill -0 "$lane" 2>/dev/null; then return 0; fi
  done
  return 1
}

run_lane() { # parts, as one word
  local part
  if [[ $1 != "${LANES[0]}" ]]; then renice -n "$NICENESS" -p "$BASHPID" >/dev/null; fi
  for part in $1; do
    touch "$scratch/$part.running"
    (run_part "$part") >"$scratch/$part.log" 2>&1 || fail "$part: ended before its time, see above" "./test.sh $part" >>"$scratch/$part.log"
    rm "$scratch/$part.running"
    flock "$results" cat "$scratch/$part.log"
  done
}

# --- parts: each reports to the results, and returns 0 ---

part_unit() {
  prepare_compression
  run_pytest unit tests/unit "$@"
}

part_lint() { # the linters to run; all without a name
  local linter scripts
  for linter in "${@:-"${LINTERS[@]}"}"; do
    case $linter in
      ruff) lint "$linter" ruff check . ;;
      ruff-format) lint "$linter" ruff format --diff . ;;
      mypy) lint "$linter" mypy ;;
      yamllint) lint "$linter" yamllint --strict . ;;
      ansible-lint) lint "$linter" ansible-lint --nocolor ;;
      shellcheck)
        mapfile -t scripts < <(files_of_the_collection | while read -r file; do if head -c 40 "$file" | grep -qaE '^#!.*\b(ba|da)?sh$'; then echo "$file"; fi; done)
        lint "$linter" shellcheck "${scripts[@]}"
        ;;
      reuse) lint "$linter" reuse lint --lines ;;
      antsibull-changelog) lint "$linter" antsibull-changelog lint ;;
      antsibull-docs) lint "$linter" antsibull-docs lint-collection-docs --plugin-docs --skip-rstcheck . ;;
      *) fail "there is no linter $linter; there are: ${LINTERS[*]}" "./test.sh lint" ;;
    esac
  done
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

part_pythons() { # minor versions, all of them without one
  local minor interpreter home tests=() status
  if [[ $# -eq 0 && -n $lanes_began ]] && ! $all; then
    record left_out "pythons: unit tests of what runs on targets on other Pythons; to run them: ./test.sh pythons, or --all"
    return 0
  fi
  mapfile -t tests < <(tests_of_targets)
  for minor in "${@:-"${TARGET_PYTHONS[@]}"}"; do
    if ! interpreter=$(working_python "$minor"); then
      record left_out "pythons: Python 3.$minor, which is not here"
      continue
    fi
    home=$STATE/python-3.$minor
    make_target_python "$interpreter" "$home"
    status=0
    PYTHONPATH=$home/library PYTHONDONTWRITEBYTECODE=1 "$home/bin/pytest" "${tests[@]}" -m "not controller" -p no:cacheprovider \
      --basetemp="$scratch/python-3.$minor" --junitxml="$scratch/python-3.$minor.xml" || status=$?
    count "pythons 3.$minor" "$status" "$scratch/python-3.$minor.xml"
  done
}

tests_of_targets() { # unit tests of module_utils and of the programs that roles install
  local file package
  for file in plugins/module_utils/_*/*.py; do
    package=$(basename "$(dirname "$file")")
    file=tests/unit/test_${package#_}_$(basename "$file")
    if [[ -e $file ]]; then echo "$file"; fi
  done
  printf 'tests/unit/test_%s.py\n' docker_prepare instance_program tunnel_program
}

make_target_python() { # interpreter, where: an environment with Ansible's module_utils, but without what only a control node has
  local interpreter=$1 home=$2 wanted packages=(pytest hypothesis PyYAML docker requests)
  wanted=$("$interpreter" --version; echo "${packages[@]}")
  if [[ $(cat "$home/made-from" 2>/dev/null) != "$wanted" ]]; then
    rm -rf "$home"
    "$interpreter" -m venv "$home"
    "$home/bin/pip" install --quiet --no-compile --disable-pip-version-check "${packages[@]}"
    mkdir "$home/library"
    ln -s "$(python -c 'import ansible, os; print(os.path.dirname(ansible.__file__))')" "$home/library/ansible"
    printf '%s\n' "$wanted" >"$home/made-from"
  fi
}

part_integration() {
  prepare_compression
  prepare_kernel_tools
  prepare_docker integration || return 0
  # A file at a time on each of two workers: the tests of one share daemons and disks of their own, and much of their time is waiting.
  run_pytest integration tests/integration --numprocesses 2 --dist loadfile --no-loadscope-reorder "$@"
  leave_out integration thorough "marked thorough, and points beside a sample: --all"
  leave_out integration kernel "that build a kernel, which go with it: ./test.sh molecule kernel, or --all"
}

part_molecule() {
  local scenarios=("$@") profiles=${KERNEL_PROFILES:-$ALL_KERNEL_PROFILES} scenario file status before verdict failed
  if [[ $# -eq 0 ]]; then
    if ! $all; then profiles=${KERNEL_PROFILES:-docker}; fi
    for file in molecule/*/molecule.yml; do
      scenario=$(basename "$(dirname "$file")")
      if [[ -e $file ]] && { $all || takes_part "$scenario" "$profiles"; }; then scenarios+=("$scenario"); fi
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
      if [[ $(tr , '\n' <<<"$profiles" | sort) != $(tr , '\n' <<<"$ALL_KERNEL_PROFILES" | sort) ]]; then
        record left_out "molecule kernel: of the profiles $ALL_KERNEL_PROFILES all but $profiles; to have them: ./test.sh molecule kernel, or --all"
      fi
      before=$(python molecule/kernel/record.py hash) || true # the record is refused for the same reason then
    fi
    status=0
    KERNEL_PROFILES=$profiles PYTEST_ADDOPTS="--junitxml=$scratch/molecule-$scenario.xml" \
      flock --close "$STATE/machine-image.lock" molecule test --scenario-name "$scenario" || status=$?
    if [[ $status -eq 0 ]]; then record passed 1; fi # the playbooks, beside the tests of the verifier
    count "molecule $scenario" "$status" "$scratch/molecule-$scenario.xml"
    if [[ $scenario == kernel ]] && ! $all; then # with --all they are in integration
      prepare_kernel_tools
      failed=$(total failed)
      run_pytest molecule tests/integration/test_kernel_build.py --kernel -m kernel
      if [[ $(total failed) -gt $failed ]]; then status=1; fi
    fi
    if [[ $scenario == kernel && $status -eq 0 ]]; then
      if verdict=$(python molecule/kernel/record.py write "$before" "$scratch/molecule-kernel.xml" 2>&1); then
        echo "$verdict"
      else
        record left_out "molecule kernel: the record of this run, because $verdict"
      fi
    fi
  done
}

takes_part() { # scenario, profiles: whether it runs where neither --all nor its name asks for it
  local verdict
  case $1 in
    vm)
      record left_out "molecule vm, because it takes 40 minutes; to run it: ./test.sh molecule vm, or --all"
      return 1
      ;;
    kernel)
      if verdict=$(python molecule/kernel/record.py check "$2" 2>&1); then
        record left_out "molecule kernel: $verdict, and no file that goes into it has changed; to build it and the others: ./test.sh molecule kernel, or --all"
        return 1
      fi
      echo "molecule kernel runs: $verdict"
      ;;
  esac
}

part_quickstart() {
  if [[ ! -d tests/quickstart ]]; then
    fail "there is no directory tests/quickstart" "./test.sh quickstart"
    return 0
  fi
  prepare_docker quickstart || return 0
  run_pytest quickstart tests/quickstart "$@"
  leave_out quickstart thorough "marked thorough, and interruptions beside a sample: --all"
}

part_ansibles() { # major versions, all of them without one
  local major minor interpreter='' home
  if [[ $# -eq 0 && -n $lanes_began ]] && ! $all; then
    record left_out "ansibles: unit tests, hostile facts and run.sh with later releases of Ansible; to run them: ./test.sh ansibles, or --all"
    return 0
  fi
  for minor in "${NEWER_PYTHONS[@]}"; do
    if interpreter=$(working_python "$minor"); then break; fi
  done
  if [[ -z $interpreter ]]; then
    record left_out "ansibles: they need Python 3.12 or newer, which is not here"
    return 0
  fi
  prepare_docker ansibles || return 0
  for major in "${@:-"${LATER_ANSIBLES[@]}"}"; do
    home=$scratch/home-of-ansible-$major # pytest empties $scratch/ansible-$major
    mkdir -p "$home/bin"
    ln -s "$interpreter" "$home/bin/python3"
    tar --exclude=./.git --exclude=./.run --exclude=./tests/output -cf - . | tar -xf - -C "$home"
    sed -i "s/^ansible==.*/ansible==$major.*/" "$home/requirements.txt"
    "$interpreter" -m venv "$home/venv"
    grep -E '^(pytest|hypothesis)' requirements-test.txt | cat "$home/requirements.txt" - >"$home/requirements-unit.txt"
    "$home/venv/bin/pip" install --quiet --no-compile --disable-pip-version-check --requirement "$home/requirements-unit.txt"
    PATH=$home/venv/bin:$PATH run_pytest "ansible-$major" tests/unit
    # Each release decides which variables facts override.
    PATH=$home/venv/bin:$PATH run_pytest "ansible-$major-facts" tests/integration/test_hostile_facts.py
    if run_with_ansible "$home"; then
      record passed 1
    else
      fail "run.sh with Ansible $major" "./test.sh ansibles $major"
    fi
  done
}

run_with_ansible() { # a copy of the checkout: run.sh twice, site.yml with nothing to do, and the removal
  local run=(env "PATH=$1/bin:$PATH" "$1/run.sh" -e "machine_image_base=$BASE_IMAGE")
  "${run[@]}" && "${run[@]}" -- version \
    && ANSIBLE_CONFIG=$1/ansible.cfg "$1/.run/venv/bin/ansible-playbook" --inventory "$1/inventory.yml" "$1/site.yml" \
      -e kata_instance_runtime=runc -e "machine_image_base=$BASE_IMAGE" | tee "$1/again" \
    && grep -q ' changed=0 ' "$1/again" && ! grep ' changed=[1-9]' "$1/again" \
    && "${run[@]}" --remove -e nested_kata_purge=true
}

run_part() {
  local part=$1 began=$SECONDS
  shift
  printf '\n=== %s (%s)\n' "$part" "$(date +%T)"
  "part_$part" "$@"
  printf -- '--- %s: %d s\n' "$part" $((SECONDS - began))
}

# --- results ---

record() { # kind, and what there is to say of it in one line
  printf '%s %s\n' "$1" "$2" >>"$results"
}

leave_out() { # part, marker, what these tests are and what runs them
  if ! $all; then record left_out "$1: $(pytest "tests/$1" --all -m "$2" --collect-only -q | grep -c ::) tests $3"; fi
}

reported() { # kind: what was recorded of it
  sed -n "s/^$1 //p" "$results"
}

total() { # kind
  reported "$1" | awk '{ sum += $1 } END { print sum + 0 }'
}

conclude() {
  echo
  reported broken | sed 's/^/FAILED: /'
  reported left_out | sed 's/^/left out: /'
  reported again | sort --unique | sed 's/^/failed; to repeat: /'
  printf '\n%d passed, %d failed\n' "$(total passed)" "$(total failed)"
  [[ $(total failed) -eq 0 && $(total passed) -gt 0 ]]
}

fail() { # what, the command to repeat it
  record failed 1
  record broken "$1"
  record again "$2"
  printf 'FAILED: %s\n' "$1"
}

lint() { # name, and a command that is silent about what is well
  local name=$1 output
  shift
  if output=$("$@" 2>&1); then
    echo "ok: $name"
    record passed 1
  else
    printf '%s\n' "$output"
    fail "$name" "./test.sh lint $name"
  fi
}

run_pytest() { # part, directory, arguments of pytest: those that name files take the place of the directory
  local part=$1 where=("$2") argument status=0 options=()
  shift 2
  for argument in "$@"; do
    if [[ -e ${argument%%::*} ]]; then where=(); fi
  done
  if $all; then options+=(--all); fi
  pytest "${where[@]}" "${options[@]}" --basetemp="$scratch/$part" --junitxml="$scratch/$part.xml" "$@" || status=$?
  count "$part" "$status" "$scratch/$part.xml"
}

count() { # part, exit status of what wrote the files, junit files: a run that died counts as a failure, though its files say nothing of it
  python - "$@" >>"$results" <<'END'
import re
import sys
import xml.etree.ElementTree as tree

part, status, *paths = sys.argv[1:]
counts = {"passed": 0, "failed": 0}


def record(kind, what):
    print(kind, " ".join(str(what).split()))


for path in paths:
    try:
        cases = list(tree.parse(path).iter("testcase"))
    except (OSError, tree.ParseError):
        continue
    for case in cases:
        skipped = case.find("skipped")
        broken = [found for found in map(case.find, ("failure", "error")) if found is not None]
        if broken:
            counts["failed"] += 1
            record("broken", f"{part}: {case.get('name')} {' '.join((broken[0].get('message') or broken[0].text or '').split())[:400]}")
        elif skipped is None:
            counts["passed"] += 1
        else:
            reason = " ".join((skipped.get("message") or skipped.text or "").split())
            if reason != "No tests applicable.":  # ansible-test has no file of that kind to look at
                record("left_out", f"{part}: {case.get('name')} because {re.sub('^Skipping sanity test .* because ', '', reason)}")
if status != "0" and not counts["failed"]:
    counts["failed"] = 1
    record("broken", f"{part}: ended with status {status}, see above")
if counts["failed"]:
    record("again", f"./test.sh {part}")
for kind, number in counts.items():
    record(kind, number)
END
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
  { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends --option DPkg::Lock::Timeout=300 "$@"; } >"$scratch/apt.log" 2>&1 </dev/null || status=$?
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
    # Python compiles what it imports; all of it would take as long again.
    "$VENV/bin/pip" install --quiet --no-compile --disable-pip-version-check --requirement requirements-test.txt
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
  mapfile -t packages < <(missing dockerd:docker.io iptables:iptables nft:nftables ip:iproute2 sysctl:procps btrfs:btrfs-progs mkfs.ext4:e2fsprogs mkfs.xfs:xfsprogs losetup:mount strace:strace sudo:sudo \
    ssh:openssh-client sshd:openssh-server openssl:openssl)
  install_packages "${packages[@]}"
  mapfile -t packages < <(missing docker:docker-cli) # Debian 13 has split it from docker.io
  install_packages "${packages[@]}"
  if ! share_docker; then
    fail "dockerd does not answer" "./test.sh $1"
    return 1
  fi
  if ! prepare_base_image; then
    fail "there is no image $BASE_IMAGE, and neither a registry nor a Debian mirror to get it from" "./test.sh $1"
    return 1
  fi
}

share_docker() { # starts dockerd where it does not answer; the last run that shares it leaves it as the first found it
  if [[ -n $shares_docker ]]; then return 0; fi
  mkdir -p "$SHARED"
  exec 8>"$STATE/docker.lock" 9>"$SHARED/lock"
  flock --exclusive --nonblock 8 || die "another ./test.sh of this checkout uses Docker: run this when it has ended, or in another clone"
  if flock --exclusive --nonblock 9; then
    rm -f "$SHARED/before"
  else
    flock --shared 9
  fi
  if ! start_docker; then return 1; fi
  if [[ ! -e $SHARED/before ]]; then docker_holds >"$SHARED/before"; fi
  flock --shared 9
  tail --pid=$$ --follow /dev/null & # keeps both locks; what the tests start does not inherit them, since it may outlive this run
  shares_docker=$!
  exec 8>&- 9>&-
}

start_docker() {
  local deadline=$((SECONDS + 60)) pid=
  if docker version >/dev/null 2>&1; then return 0; fi
  if [[ -d /run/systemd/system ]]; then
    systemctl start docker || return 1
  else
    setsid dockerd >"$STATE/dockerd.log" 2>&1 </dev/null 8>&- 9>&- &
    pid=$!
    echo "$pid" >"$SHARED/dockerd.pid"
  fi
  until docker version >/dev/null 2>&1; do
    if [[ $SECONDS -ge $deadline ]] || { [[ -n $pid ]] && ! kill -0 "$pid" 2>/dev/null; }; then
      if [[ -n $pid ]]; then tail -n 20 "$STATE/dockerd.log"; fi
      return 1
    fi
    sleep 0.2
  done
}

stop_docker() { # that a run of the tests has started
  local pid
  pid=$(cat "$SHARED/dockerd.pid" 2>/dev/null) || return 0
  rm "$SHARED/dockerd.pid"
  if [[ $(cat "/proc/$pid/comm" 2>/dev/null) != dockerd ]]; then return 0; fi
  kill "$pid"
  while kill -0 "$pid" 2>/dev/null; do sleep 0.1; done
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

leave_docker() { # without what this run made; the last run leaves it as the first found it
  if [[ -z $shares_docker ]]; then return 0; fi
  if ! $keep; then remove_from_docker "container t-*$MARK*" "container nested-kata-test-*$MARK" "network t-*$MARK*" "volume t-*$MARK*" "image t-*$MARK*"; fi
  kill "$shares_docker" 2>/dev/null || true
  wait "$shares_docker" 2>/dev/null || true
  shares_docker=
  exec 9>"$SHARED/lock"
  if flock --exclusive --nonblock 9; then
    if ! $keep; then remove_from_docker "image nested-kata*" "image $BASE_IMAGE"; fi
    stop_docker
  else
    echo "another ./test.sh is at work: it removes the images that both use when it ends, and stops a dockerd that one of them started"
  fi
  exec 9>&-
}

remove_from_docker() { # patterns of kind and name: what fits one, and was not there before the tests
  local kind name pattern
  docker_holds | grep -vxF --file="$SHARED/before" | while read -r kind name; do
    for pattern in "$@"; do
      # shellcheck disable=SC2053 # a pattern
      if [[ "$kind $name" != $pattern ]]; then continue; fi
      case $kind in
        container) docker container rm --force --volumes "$name" ;;
        image) docker image rm --force "$name" ;;
        *) docker "$kind" rm "$name" ;;
      esac
    done
  done >/dev/null 2>&1 || true
}

tidy() {
  local target
  if $keep; then return 0; fi
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
  local status=$? lane
  trap - EXIT INT TERM
  # What runs in the lanes ends as by Ctrl-C, before it is taken away from under it.
  for lane in "${lanes[@]}"; do kill -INT -- "-$lane" 2>/dev/null || true; done
  if [[ ${#lanes[@]} -gt 0 ]]; then wait "${lanes[@]}" 2>/dev/null || true; fi # without a name it would wait for dockerd
  leave_docker
  tidy
  if ! $keep && [[ -n $scratch ]]; then rm -rf "$scratch"; fi
  exit "$status"
}

main "$@"
