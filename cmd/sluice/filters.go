package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"
)

// filters are what a list is selected by, by the names of flags.
type filters map[string]string

// filterFlags are all of them; a resource takes some.
var filterFlags = []struct{ name, help string }{
	{"prefix", "only those whose name begins so"},
	{"owner", "only objects of this owner, which apply --owner gives them"},
	{"service", "only what is of this service: upstreams, nodes, overrides"},
	{"group", "only sites and gateways of this group"},
	{"host", "only sites that serve this host name, by a wildcard too"},
	{"upstream", "only sites with a route to this upstream"},
	{"expires-before", "only certificates that expire before this time, as 2026-12-31 or 720h from now"},
	{"state", "only overrides (active, draining, disabled) and nodes (up, unhealthy, held, …) in this state"},
	{"zone", "only nodes that run there"},
	{"tag", "only nodes with this tag"},
	{"address", "only nodes at this address or in this network, as 10.0.0.0/8"},
	{"phase", "only gateways in this phase: starting, in_step, applying, waiting, failed"},
}

func registerFilters(flags *pflag.FlagSet) {
	for _, f := range filterFlags {
		flags.String(f.name, "", f.help)
	}
}

// filtersOf returns those of the command line alone: an environment that was made for sluice register has a SLUICE_SERVICE.
func filtersOf(flags *pflag.FlagSet) filters {
	given := filters{}
	flags.Visit(func(f *pflag.Flag) {
		if slices.ContainsFunc(filterFlags, func(known struct{ name, help string }) bool { return known.name == f.Name }) {
			given[f.Name] = f.Value.String()
		}
	})
	return given
}

// check says which of them the target does not take.
func (f filters) check(t target) error {
	for name := range f {
		switch {
		case t.object != "":
			return usageError(fmt.Errorf("%s names one: leave out --%s", t, name))
		case name != "prefix" && !slices.Contains(t.filters, name):
			takes := append([]string{"prefix"}, t.filters...)
			return usageError(fmt.Errorf("--%s selects no %s: they take --%s", name, t.name, strings.Join(takes, ", --")))
		}
	}
	if text, ok := f["expires-before"]; ok {
		at, err := parseTime(text, time.Now())
		if err != nil {
			return usageError(fmt.Errorf("--expires-before: %w", err))
		}
		f["expires-before"] = at.UTC().Format(time.RFC3339)
	}
	return nil
}

// parseTime reads a time, a day, or how far off it is.
func parseTime(text string, now time.Time) (time.Time, error) {
	if off, err := time.ParseDuration(text); err == nil {
		return now.Add(off), nil
	}
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if at, err := time.Parse(layout, text); err == nil {
			return at, nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is no time: write it as 2026-12-31, 2026-12-31T12:00:00Z, or 720h for so long from now", text)
}
