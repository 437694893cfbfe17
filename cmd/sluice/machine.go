package main

import (
	"fmt"
	"io/fs"
	"strconv"
	"strings"
)

// machine is what doctor looks at of the kernel.
type machine struct {
	proc      fs.FS
	openFiles uint64 // the hard limit of a process
}

// Sizes that this program's tests and nginx's own defaults give.
const (
	nginxBacklog    = 511               // nginx's listen backlog on Linux
	defaultPorts    = 60999 - 32768 + 1 // of Linux
	oldGenerationMB = 8                 // memory of an idle worker of an old generation
)

func (m machine) examine(workerConnections int) []finding {
	return []finding{m.descriptors(workerConnections), m.ports(), m.backlog(), m.memory()}
}

// numbers reads the numbers of a file below /proc.
func (m machine) numbers(path string) ([]int, error) {
	text, err := fs.ReadFile(m.proc, path)
	if err != nil {
		return nil, err
	}
	var out []int
	for _, word := range strings.Fields(string(text)) {
		if n, err := strconv.Atoi(word); err == nil {
			out = append(out, n)
		}
	}
	return out, nil
}

// descriptors: a worker needs one for each connection, and a proxied WebSocket is two connections.
func (m machine) descriptors(workerConnections int) finding {
	if m.openFiles < uint64(workerConnections) {
		return finding{warn, "descriptors", fmt.Sprintf("a process may open %d files, and a worker is to have %d connections", m.openFiles, workerConnections),
			fmt.Sprintf("raise the hard limit (LimitNOFILE=%d of the systemd unit): else each worker has as many connections as it may open files", 2*workerConnections)}
	}
	return finding{fine, "descriptors", fmt.Sprintf("a process may open %d files: %d proxied WebSockets a worker", m.openFiles, workerConnections/2), ""}
}

// ports: nginx can have as many connections to one address of a node as there are ports of its own for it. This, and not
// 65,535 in all, is the limit that people know.
func (m machine) ports() finding {
	n, err := m.numbers("sys/net/ipv4/ip_local_port_range")
	if err != nil || len(n) != 2 {
		return finding{warn, "ports", fmt.Sprintf("net.ipv4.ip_local_port_range cannot be read: %v", err), ""}
	}
	per := n[1] - n[0] + 1
	message := fmt.Sprintf("%d connections to each node's address and port", per)
	const mend = "let nodes listen on several ports or unix sockets, or add nodes: the limit is for each of them"
	if per < defaultPorts {
		return finding{warn, "ports", message, "sysctl -w net.ipv4.ip_local_port_range='10240 65535'; " + mend}
	}
	return finding{fine, "ports", message + "; for more, " + mend, ""}
}

func (m machine) backlog() finding {
	n, err := m.numbers("sys/net/core/somaxconn")
	switch {
	case err != nil || len(n) != 1:
		return finding{warn, "backlog", fmt.Sprintf("net.core.somaxconn cannot be read: %v", err), ""}
	case n[0] < nginxBacklog:
		return finding{warn, "backlog", fmt.Sprintf("net.core.somaxconn is %d, and nginx asks for %d", n[0], nginxBacklog),
			"sysctl -w net.core.somaxconn=4096: clients that connect again together are refused else"}
	}
	return finding{fine, "backlog", fmt.Sprintf("net.core.somaxconn is %d", n[0]), ""}
}

func (m machine) memory() finding {
	text, err := fs.ReadFile(m.proc, "meminfo")
	if err != nil {
		return finding{warn, "memory", err.Error(), ""}
	}
	for line := range strings.Lines(string(text)) {
		rest, ok := strings.CutPrefix(line, "MemAvailable:")
		if !ok {
			continue
		}
		kb, err := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(rest), " kB"))
		if err != nil {
			break
		}
		if mb := kb >> 10; mb < 64*oldGenerationMB {
			return finding{warn, "memory", fmt.Sprintf("%d MB are available", mb), "reloads leave workers behind for as long as their WebSockets live, 8 MB each when idle: give the machine more"}
		}
		return finding{fine, "memory", fmt.Sprintf("%d MB are available", kb>>10), ""}
	}
	return finding{warn, "memory", "/proc/meminfo has no MemAvailable", ""}
}
