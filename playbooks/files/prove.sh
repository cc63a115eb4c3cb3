#!/bin/sh
# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Real work for the Docker daemon of an instance: run in the instance. Prints one line for each proof.
#   prove.sh begin        prints a line where the first proof is unfinished, however often it was begun
#   prove.sh work BASE    builds an image with packages from the mirror, runs it, and has two containers talk
#   prove.sh volume       prints what `work` wrote to the volume, and fails where the volume is missing
#   prove.sh finish       notes that the first proof is finished
set -eu
image=nested-kata/proof
volume=nested-kata-proof
unfinished=nested-kata-proof-unfinished
network=nested-kata-proof

clean() {
  docker rm --force nested-kata-web >/dev/null 2>&1 || true
  docker network rm "$network" >/dev/null 2>&1 || true
}

seconds() { echo "$(($(date +%s) - $1)) s"; }

begin() {
  docker volume inspect "$volume" >/dev/null 2>&1 || docker volume create "$unfinished" >/dev/null
  docker volume ls --quiet --filter "name=$unfinished"
}

finish() { docker volume rm "$unfinished" >/dev/null; }

work() {
  # An interrupted proof runs to its end here: it does not notice that its client is gone.
  exec 9>/run/nested-kata-proof.lock
  flock 9
  trap clean EXIT
  clean

  from=$(date +%s)
  docker build --quiet --tag "$image" - >/dev/null <<DOCKERFILE
FROM $1
RUN apt-get update && apt-get install --yes --no-install-recommends busybox && mkdir /www && echo "Hello from a container" >/www/index.html
CMD ["busybox", "httpd", "-f", "-h", "/www"]
DOCKERFILE
  echo "docker build with apt-get update and install: $(seconds "$from")"

  test "$(docker run --rm "$image" cat /www/index.html)" = "Hello from a container"
  echo "docker run of what was built: ok"

  docker network create "$network" >/dev/null
  docker run --detach --name nested-kata-web --network "$network" --publish 18080:80 "$image" >/dev/null
  hello=$(docker run --rm --network "$network" "$image" busybox wget -q -O - http://nested-kata-web/)
  test "$hello" = "Hello from a container"
  echo "two containers on a network, one reached by its name: ok"

  hello=$(python3 -c 'import urllib.request; print(urllib.request.urlopen("http://127.0.0.1:18080/", timeout=10).read().decode().strip())')
  test "$hello" = "Hello from a container"
  echo "published port, reached from the instance: ok"

  docker run --rm --volume "$volume:/data" "$image" sh -c 'test -e /data/written || cat /proc/sys/kernel/random/uuid >/data/written'
}

volume() {
  docker volume inspect "$volume" >/dev/null
  docker run --rm --volume "$volume:/data" "$image" cat /data/written
}

"$@"
