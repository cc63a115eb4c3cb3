#!/bin/sh
# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Runs in a container of Debian 13 with Go, which fetches the libraries as modules: go.sum says what they must be. An archive of
# the sources comes in, the shim goes out. Without optimization, which takes longer than it saves here.
set -eu
exec 3>&1 >&2
mkdir /build
cd /build
tar -xf -
CGO_ENABLED=0 GOFLAGS=-buildvcs=false GOGC=off GOTOOLCHAIN=local go build -gcflags 'all=-N -l' -trimpath -ldflags '-s -w' -o shim .
cat shim >&3
