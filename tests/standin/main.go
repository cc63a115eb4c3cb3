// Copyright (c) 2026, the nested.kata founders
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

// A stand-in for Kata's shim, for tests where no virtual machine can be had: it takes Kata's options, refuses a
// configuration that Kata would stumble over, and then goes on as containerd's own shim, with runc.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	task "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/containerd/oci"
	"github.com/containerd/containerd/pkg/shutdown"
	"github.com/containerd/containerd/plugin"
	"github.com/containerd/containerd/protobuf"
	"github.com/containerd/containerd/protobuf/types"
	"github.com/containerd/containerd/runtime/v2/runc/manager"
	runc "github.com/containerd/containerd/runtime/v2/runc/options"
	service "github.com/containerd/containerd/runtime/v2/runc/task"
	"github.com/containerd/containerd/runtime/v2/shim"
	"github.com/containerd/log"
	"github.com/containerd/ttrpc"
	"github.com/containerd/typeurl/v2"
)

const id = "io.containerd.kata.v2"

func main() {
	if len(os.Args) == 2 && (strings.Trim(os.Args[1], "-") == "version" || strings.Trim(os.Args[1], "-") == "v") {
		fmt.Printf("stand-in for Kata's containerd shim (runc: no virtual machine): id: %s, version: %s\n", id, version())
		return
	}
	plugin.Register(&plugin.Registration{
		Type:     plugin.TTRPCPlugin,
		ID:       "task",
		Requires: []plugin.Type{plugin.EventPlugin, plugin.InternalPlugin},
		InitFn: func(ic *plugin.InitContext) (interface{}, error) {
			publisher, err := ic.GetByID(plugin.EventPlugin, "publisher")
			if err != nil {
				return nil, err
			}
			down, err := ic.GetByID(plugin.InternalPlugin, "shutdown")
			if err != nil {
				return nil, err
			}
			inner, err := service.NewTaskService(ic.Context, publisher.(shim.Publisher), down.(shutdown.Service))
			return standIn{inner}, err
		},
	})
	shim.RunManager(context.Background(), manager.NewShimManager(id))
}

// version returns that of the release in which the shim lies, as runtime-rs/bin/containerd-shim-kata-v2.
func version() string {
	self, _ := os.Executable()
	text, err := os.ReadFile(filepath.Join(filepath.Dir(self), "../../VERSION"))
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(text))
}

type standIn struct{ task.TaskService }

func (s standIn) RegisterTTRPC(server *ttrpc.Server) error {
	task.RegisterTaskService(server, s)
	return nil
}

func (s standIn) Create(ctx context.Context, request *task.CreateTaskRequest) (*task.CreateTaskResponse, error) {
	file, err := check(request.Options)
	if err == nil {
		request.Options, err = runcOptions(request.Bundle)
	}
	if err != nil {
		return nil, fmt.Errorf("stand-in for Kata: %w", err)
	}
	log.G(ctx).Warnf("stand-in for Kata: %s is in order; %s runs with runc, not in a virtual machine", file, request.ID)
	return s.TaskService.Create(ctx, request)
}

// runcOptions takes the place of Kata's. Docker gives systemd's form of a cgroup, slice:prefix:name, and says so to runc alone.
func runcOptions(bundle string) (*types.Any, error) {
	spec, err := oci.ReadSpec(filepath.Join(bundle, oci.ConfigFilename))
	if err != nil {
		return nil, err
	}
	systemd := spec.Linux != nil && strings.Count(spec.Linux.CgroupsPath, ":") == 2
	any, err := typeurl.MarshalAny(&runc.Options{SystemdCgroup: systemd})
	return protobuf.FromAny(any), err
}
