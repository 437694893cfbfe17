// Package house holds the order of the house: which package may import which other of ours.
package house_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"
)

const module = "sluice"

// table says what of ours each package may import. Everything that is not a test obeys it; tests may look at more.
var table = map[string][]string{
	"registry":              {},
	"registry/keyspace":     {"registry"},
	"registry/etcd":         {"registry", "registry/keyspace"},
	"registry/consul":       {"registry", "registry/keyspace"},
	"registry/registrytest": {"registry"},
	"controlplane/spec":     {},
	"controlplane/health":   {"registry", "controlplane/spec"},
	"templates":             {},
	"controlplane/nginx":    {"templates"},
	"controlplane":          {"registry", "controlplane/spec", "controlplane/health", "templates"},
	"api":                   {"", "registry", "controlplane", "controlplane/spec"},
}

// free may import all of ours: the binary joins the parts, and the rest is for tests.
var free = []string{"cmd/sluice", "e2e", "internal/house", "internal/testport"}

func TestImports(t *testing.T) {
	t.Parallel()
	for name, imports := range packages(t) {
		if name == "" || slices.Contains(free, name) {
			continue
		}
		allowed, known := table[name]
		if !known {
			t.Errorf("package %s is not in the table: say here, in .golangci.yml and in ARCHITECTURE.md what it may import", name)
			continue
		}
		for _, imported := range imports {
			if !slices.Contains(allowed, imported) {
				t.Errorf("package %s imports %q; it may import %q", name, imported, allowed)
			}
		}
	}
}

// The root package embeds openapi.yaml and nothing else.
func TestRootImportsNothing(t *testing.T) {
	t.Parallel()
	if imports := packages(t)[""]; len(imports) > 0 {
		t.Errorf("the root package imports %q; it is there to embed openapi.yaml", imports)
	}
}

// The linter tells while one writes, this test tells in any case: both must say the same.
func TestLinterHasTheSameTable(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../.golangci.yml")
	if err != nil {
		t.Fatal(err)
	}
	var config struct {
		Linters struct {
			Settings struct {
				Depguard struct {
					Rules map[string]struct {
						Files []string
						Allow []string
						Deny  []struct{ Pkg string }
					}
				}
			}
		}
	}
	if err := yaml.Unmarshal(text, &config); err != nil {
		t.Fatal(err)
	}
	linter := map[string][]string{}
	for rule, r := range config.Linters.Settings.Depguard.Rules {
		if len(r.Files) != 2 || r.Files[1] != "!$test" || len(r.Deny) != 1 || r.Deny[0].Pkg != module+"/" {
			t.Errorf("depguard rule %s: want the files of one package without its tests, and %s/ denied", rule, module)
			continue
		}
		name := strings.TrimSuffix(strings.TrimPrefix(r.Files[0], "**/"), "/*.go")
		linter[name] = []string{}
		for _, allow := range r.Allow {
			linter[name] = append(linter[name], ours(strings.TrimSuffix(allow, "$")))
		}
	}
	if diff := cmp.Diff(table, linter); diff != "" {
		t.Errorf("the linter's rules differ from the table (-table +linter):\n%s", diff)
	}
}

// packages returns what of ours each package of the module imports, by its path in the module.
func packages(t *testing.T) map[string][]string {
	t.Helper()
	list := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Imports", "./...")
	list.Dir = "../.."
	list.Stderr = os.Stderr
	out, err := list.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	found := map[string][]string{}
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
		var p struct {
			ImportPath string
			Imports    []string
		}
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			return found
		} else if err != nil {
			t.Fatalf("go list: %v", err)
		}
		found[ours(p.ImportPath)] = nil
		for _, imported := range p.Imports {
			if imported == module || strings.HasPrefix(imported, module+"/") {
				found[ours(p.ImportPath)] = append(found[ours(p.ImportPath)], ours(imported))
			}
		}
	}
}

// ours returns the path of a package within the module.
func ours(path string) string { return strings.TrimPrefix(strings.TrimPrefix(path, module), "/") }
