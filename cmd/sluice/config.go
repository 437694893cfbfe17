package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/spf13/pflag"
)

// fillFlags gives the flags that the command line did not give a value: from the environment (SLUICE_STATE_DIR for
// --state-dir), else from the file, a YAML mapping with the flags' names. Each source is strict: an unknown name or a bad
// value is an error that says where it stands.
func fillFlags(flags *pflag.FlagSet, file string) error {
	given := map[string]bool{}
	flags.Visit(func(f *pflag.Flag) { given[f.Name] = true })
	var errs []error
	flags.VisitAll(func(f *pflag.Flag) {
		name := envName(f.Name)
		value, ok := os.LookupEnv(name)
		if !ok || given[f.Name] {
			return
		}
		given[f.Name] = true
		if err := flags.Set(f.Name, value); err != nil {
			errs = append(errs, fmt.Errorf("environment variable %s: %w", name, err))
		}
	})
	if file != "" {
		errs = append(errs, fillFromFile(flags, file, given))
	}
	return errors.Join(errs...)
}

func envName(flag string) string {
	return "SLUICE_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

func fillFromFile(flags *pflag.FlagSet, file string, given map[string]bool) error {
	tree, err := parser.ParseFile(file, 0)
	if err != nil {
		return fmt.Errorf("configuration file %s: %w", file, err)
	}
	var errs []error
	for _, doc := range tree.Docs {
		var entries []*ast.MappingValueNode
		switch body := doc.Body.(type) {
		case nil:
		case *ast.MappingNode:
			entries = body.Values
		case *ast.MappingValueNode:
			entries = []*ast.MappingValueNode{body}
		default:
			return fmt.Errorf("configuration file %s: must be a mapping of flag names to values, as `state-dir: /var/lib/sluice`", file)
		}
		for _, entry := range entries {
			key := entry.Key.GetToken()
			if err := setFromNode(flags, key.Value, entry.Value, given); err != nil {
				errs = append(errs, fmt.Errorf("%s:%d: %w", file, key.Position.Line, err))
			}
		}
	}
	return errors.Join(errs...)
}

func setFromNode(flags *pflag.FlagSet, name string, node ast.Node, given map[string]bool) error {
	flag := flags.Lookup(name)
	if flag == nil || name == "config" || name == "help" {
		return fmt.Errorf("unknown setting %q: the settings are the flags of `sluice run --help`, without the dashes", name)
	}
	if given[name] {
		return nil
	}
	values := []ast.Node{node}
	if list, ok := node.(*ast.SequenceNode); ok {
		values = list.Values
	}
	for _, v := range values {
		scalar, ok := v.(ast.ScalarNode)
		if !ok {
			return fmt.Errorf("setting %s: takes a plain value, not a mapping", name)
		}
		if err := flags.Set(name, fmt.Sprint(scalar.GetValue())); err != nil {
			return fmt.Errorf("setting %s: %w", name, err)
		}
	}
	return nil
}
