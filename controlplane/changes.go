package controlplane

import (
	"fmt"
	"reflect"
	"strings"

	"sluice/templates"
)

// changes is what differs between two configurations, as far as it decides how urgent a reload is.
type changes struct {
	join, leave int  // nodes that begin or cease to take connections
	other       bool // anything else
}

// compare returns what happens when next takes the place of live.
func compare(live, next templates.Config) changes {
	var c changes
	before, after := serving(live), serving(next)
	for node := range after {
		if !before[node] {
			c.join++
		}
	}
	for node := range before {
		if !after[node] {
			c.leave++
		}
	}
	c.other = !reflect.DeepEqual(live.Sites, next.Sites) ||
		!reflect.DeepEqual(live.Sockets, next.Sockets) ||
		!reflect.DeepEqual(live.Certificates, next.Certificates) ||
		c.join == 0 && c.leave == 0
	return c
}

// serving returns the servers that take connections, by upstream, node and address.
func serving(cfg templates.Config) map[[3]string]bool {
	servers := map[[3]string]bool{}
	for _, u := range cfg.Upstreams {
		for _, s := range u.Servers {
			if !s.Down {
				servers[[3]string{u.Name, s.Node, s.Address}] = true
			}
		}
	}
	return servers
}

func (c changes) String() string {
	var parts []string
	if c.join > 0 {
		parts = append(parts, plural(c.join, "node joins", "nodes join"))
	}
	if c.leave > 0 {
		parts = append(parts, plural(c.leave, "node leaves", "nodes leave"))
	}
	if c.other {
		parts = append(parts, "settings change")
	}
	return strings.Join(parts, ", ")
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
