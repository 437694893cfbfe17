package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"

	"sluice/controlplane"
	"sluice/controlplane/nginx"
	"sluice/controlplane/spec"
	"sluice/registry"
	"sluice/templates"
)

// renderFlags are the settings of sluice render.
type renderFlags struct {
	files     []string
	nodes     string
	out       string
	group     string
	nginx     string
	templates string
}

func newRenderCommand() *cobra.Command {
	var f renderFlags
	cmd := &cobra.Command{
		Use:   "render -f FILE -o DIR",
		Short: "Write the nginx configuration of a document, without a registry",
		Long: `Write the nginx configuration of a document, without a registry: the generator alone.

What is written is what a gateway of the group would stage, and can be tested with nginx -t. Bad objects are left out and
reported; then the exit code is 1. The binary that --nginx names is asked what it can do.`,
		Example: `  sluice render -f chat.yaml -o out
  sluice nodes -o json > nodes.json
  sluice render -f chat.yaml --nodes nodes.json -o out && nginx -t -p $PWD/out -c $PWD/out/nginx.conf`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd.Context(), cmd.OutOrStdout()) },
	}
	flags := cmd.Flags()
	flags.StringArrayVarP(&f.files, "file", "f", nil, "document with the desired state, as for sluice apply; - is standard input")
	flags.StringVar(&f.nodes, "nodes", "", "file with a list of nodes, YAML or JSON, as sluice nodes -o json writes it")
	flags.StringVarP(&f.out, "output", "o", "", "directory to write to; it is made if it is missing")
	flags.StringVar(&f.group, "group", spec.DefaultGroup, "group of the gateway to render for")
	flags.StringVar(&f.nginx, "nginx", "", "nginx or OpenResty binary to render for (default: the first of openresty and nginx that is found)")
	flags.StringVar(&f.templates, "templates", "", "directory with templates that replace built-in ones of the same name")
	for _, name := range []string{"file", "output"} {
		if err := cmd.MarkFlagRequired(name); err != nil {
			panic(err) // the flag is defined above
		}
	}
	return cmd
}

func (f *renderFlags) run(ctx context.Context, stdout io.Writer) error {
	snapshot, err := f.snapshot()
	if err != nil {
		return err
	}
	binary := f.nginx
	if binary == "" {
		if binary, err = findNginx(); err != nil {
			return err
		}
	}
	probed, err := nginx.Probe(ctx, binary)
	if err != nil {
		return err
	}
	out, err := filepath.Abs(f.out)
	if err != nil {
		return err
	}
	facts := controlplane.Facts{Group: f.group, Rendering: controlplane.Rendering{Capabilities: probed.Caps, AccessLog: "logs/access.log"}}
	facts.Files = controlplane.ReadFiles(controlplane.CertificateFiles(snapshot, controlplane.Good{}))
	compiled := controlplane.Compile(snapshot, controlplane.Good{}, facts)
	if len(compiled.Slots) > 0 { // nobody stores them here: they are as a registry would have them
		snapshot.Slots = compiled.Slots
		compiled = controlplane.Compile(snapshot, controlplane.Good{}, facts)
	}
	bundle, err := f.render(compiled.Config, out)
	if err != nil {
		return err
	}
	if err := writeBundle(out, bundle); err != nil {
		return err
	}
	for _, p := range compiled.Problems {
		fmt.Fprintln(stdout, "problem:", p)
	}
	fmt.Fprintf(stdout, "revision %s: %d sites, %d nodes, %d files in %s\n",
		bundle.Revision, len(compiled.Config.Sites), compiled.Nodes, len(bundle.Files), out)
	if len(compiled.Problems) > 0 {
		return fmt.Errorf("%d problems: what they concern is not as the document says", len(compiled.Problems))
	}
	return nil
}

// render returns the bundle with the control files that a gateway in dir would have.
func (f *renderFlags) render(cfg templates.Config, dir string) (templates.Bundle, error) {
	set, err := templates.New(f.templates)
	if err != nil {
		return templates.Bundle{}, err
	}
	bundle, err := set.Render(cfg)
	if err != nil {
		return templates.Bundle{}, err
	}
	control, err := set.RenderControl(cfg, templates.Control{
		ReloadID: "render", Revision: bundle.Revision, Socket: filepath.Join(dir, "control.sock"),
		PIDFile: filepath.Join(dir, "nginx.pid"), ErrorLog: filepath.Join(dir, "logs", "error.log"), TempDir: filepath.Join(dir, "temp"),
	})
	bundle.Files = append(bundle.Files, control...)
	return bundle, err
}

// snapshot is what a registry with the document and the nodes would send.
func (f *renderFlags) snapshot() (registry.Snapshot, error) {
	var s registry.Snapshot
	doc, err := readDocuments(f.files)
	if err != nil {
		return s, err
	}
	if s.Objects, err = objects(doc); err != nil {
		return s, err
	}
	if f.nodes != "" {
		s.Nodes, err = readNodes(f.nodes)
	}
	return s, err
}

// objects returns the objects of a document as the API would store them.
func objects(doc spec.Document) ([]registry.Object, error) {
	var list []registry.Object
	var errs []error
	add := func(kind registry.Kind, name string, value any) {
		data, err := json.Marshal(value)
		if err != nil {
			errs = append(errs, fmt.Errorf("encode %s %s: %w", kind, name, err))
		}
		list = append(list, registry.Object{Kind: kind, Name: name, Seq: 1, Value: data})
	}
	for name, c := range doc.Certificates {
		if c.Key != "" {
			c.KeySHA256 = spec.KeyHash(c.Key)
			add(registry.KindSecret, c.KeySHA256, controlplane.Secret{PEM: c.Key})
			c.Key = ""
		}
		add(registry.KindCertificate, name, c)
	}
	addAll(add, registry.KindOverride, doc.Overrides)
	addAll(add, registry.KindSite, doc.Sites)
	addAll(add, registry.KindUpstream, doc.Upstreams)
	slices.SortFunc(list, func(a, b registry.Object) int { return strings.Compare(a.Ref().String(), b.Ref().String()) })
	return list, errors.Join(errs...)
}

func addAll[T any](add func(registry.Kind, string, any), kind registry.Kind, from map[string]T) {
	for _, name := range slices.Sorted(maps.Keys(from)) {
		add(kind, name, from[name])
	}
}

func readNodes(path string) ([]registry.Node, error) {
	data, err := os.ReadFile(filepath.Clean(path))
	if err != nil {
		return nil, err
	}
	var nodes []registry.Node
	if err := yaml.UnmarshalWithOptions(data, &nodes, yaml.UseJSONUnmarshaler()); err != nil {
		return nil, fmt.Errorf("%s is not a list of nodes: %w", path, err)
	}
	for _, n := range nodes {
		if err := n.Validate(); err != nil {
			return nil, fmt.Errorf("%s: node %s: %w", path, n.Ref(), err)
		}
	}
	slices.SortFunc(nodes, func(a, b registry.Node) int { return strings.Compare(a.Service+"\x00"+a.ID, b.Service+"\x00"+b.ID) })
	return nodes, nil
}

func writeBundle(dir string, bundle templates.Bundle) error {
	for _, sub := range []string{"logs", "temp"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			return err
		}
	}
	for _, file := range bundle.Files {
		path := filepath.Join(dir, filepath.FromSlash(file.Path))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, file.Data, file.Mode); err != nil {
			return err
		}
	}
	return nil
}
