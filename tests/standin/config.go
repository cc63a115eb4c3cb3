// Copyright (c) 2026, the nested.kata founders
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/BurntSushi/toml"
	"github.com/containerd/containerd/pkg/runtimeoptions/v1"
	"github.com/containerd/containerd/protobuf/types"
	"github.com/containerd/typeurl/v2"
	"golang.org/x/sys/unix"
)

// What Kata takes where there is no ConfigPath, in this order.
var defaults = []string{
	"/etc/kata-containers/runtime-rs/configuration.toml",
	"/usr/share/defaults/kata-containers/runtime-rs/configuration.toml",
	"/opt/kata/share/defaults/kata-containers/runtime-rs/configuration.toml",
}

// The part of the configuration that is looked at; what has the wrong type is an error.
type configuration struct {
	Hypervisor map[string]struct {
		Path, Kernel, Image, Initrd string
		SharedFS                    string  `toml:"shared_fs"`
		VirtioFSDaemon              string  `toml:"virtio_fs_daemon"`
		KernelParams                string  `toml:"kernel_params"`
		VCPUs                       float32 `toml:"default_vcpus"`
		Memory                      uint32  `toml:"default_memory"`
	}
	Runtime struct {
		HypervisorName string `toml:"hypervisor_name"`
	}
}

// check returns the configuration file, or what Kata would stumble over. Its order is Kata's.
func check(given *types.Any) (string, error) {
	var options runtimeoptions_v1.Options
	if given != nil {
		if err := typeurl.UnmarshalTo(given, &options); err != nil {
			return "", fmt.Errorf("options: %w", err)
		}
	}
	file, config, err := load(options.ConfigPath)
	if err != nil {
		return "", fmt.Errorf("load config: %w", err)
	}
	name := config.Runtime.HypervisorName
	vm, found := config.Hypervisor[name]
	if !found {
		return "", fmt.Errorf("hypervisor %q (hypervisor_name) has no table in the configuration", name)
	}
	for _, one := range []struct {
		what, path string
		mode       uint32
		unset      bool // may be left out
	}{
		{"hypervisor path", vm.Path, unix.X_OK, false},
		{"guest kernel", vm.Kernel, unix.R_OK, false},
		{"guest image", vm.Image, unix.R_OK, true},
		{"guest initrd", vm.Initrd, unix.R_OK, true},
		{"virtio-fs daemon", vm.VirtioFSDaemon, unix.X_OK, vm.SharedFS == "none"},
	} {
		if one.path == "" && one.unset {
			continue
		}
		if err := unix.Access(one.path, one.mode); err != nil {
			return "", fmt.Errorf("%s %s is invalid: %w (os error %d)", one.what, one.path, err, err)
		}
	}
	if (vm.Image == "") == (vm.Initrd == "") {
		return "", fmt.Errorf("either image or initrd must be configured: image is %q, initrd is %q", vm.Image, vm.Initrd)
	}
	return file, nil
}

// load merges the drop-ins beside the file, links resolved, into it: tables deeply, all else is replaced.
func load(path string) (file string, config configuration, err error) {
	for _, one := range defaults {
		if _, err := os.Stat(one); path == "" && err == nil {
			path = one
		}
	}
	if path == "" {
		return "", config, errors.New("there is no ConfigPath, and none of " + strings.Join(defaults, ", "))
	}
	if file, err = filepath.EvalSymlinks(path); err != nil {
		return "", config, err
	}
	merged := map[string]interface{}{}
	if err := add(merged, file); err != nil {
		return "", config, err
	}
	directory := filepath.Join(filepath.Dir(file), "config.d")
	entries, err := os.ReadDir(directory) // in the order of their names
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", config, err
	}
	for _, entry := range entries {
		dropIn := filepath.Join(directory, entry.Name())
		if !entry.Type().IsRegular() {
			return "", config, fmt.Errorf("drop-in %s is not a regular file", dropIn)
		}
		if err := add(merged, dropIn); err != nil {
			return "", config, err
		}
	}
	text, err := toml.Marshal(merged)
	if err == nil {
		err = toml.Unmarshal(text, &config)
	}
	if err != nil {
		return "", config, fmt.Errorf("%s with its config.d: %w", file, err)
	}
	return file, config, nil
}

func add(merged map[string]interface{}, file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var more map[string]interface{}
	if err := toml.Unmarshal(text, &more); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	merge(merged, more)
	return nil
}

func merge(into, more map[string]interface{}) {
	for key, value := range more {
		table, isTable := value.(map[string]interface{})
		old, wasTable := into[key].(map[string]interface{})
		if isTable && wasTable {
			merge(old, table)
		} else {
			into[key] = value
		}
	}
}
