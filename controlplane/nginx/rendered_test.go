package nginx

import (
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"sluice/internal/testport"
	"sluice/templates"
)

// What templates really renders, in both modes, through a reload.
func TestRendered(t *testing.T) {
	t.Parallel()
	for _, mode := range []Mode{Full, Include} {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			set, err := templates.New("")
			if err != nil {
				t.Fatal(err)
			}
			o, start := options(t), func() {}
			if mode == Include {
				var op operator
				op, o = newOperator(t)
				start = func() { op.start(t) }
			}
			config := templates.Config{HTTPOnly: mode == Include, Dir: filepath.Join(o.Dir, "current")}
			o.Control = func(c templates.Control) ([]templates.File, error) { return set.RenderControl(config, c) }
			d, port, backend := open(t, o), testport.Free(t), echo(t)
			start()
			if d.Base() != config.Dir {
				t.Fatalf("the base is %s, want %s", d.Base(), config.Dir)
			}
			config.Capabilities = d.Capabilities()
			address := "127.0.0.1:" + strconv.Itoa(port)
			config.Sockets = []templates.Socket{{Address: address, CatchAll: true}}
			render := func(weight int) templates.Bundle {
				t.Helper()
				config.Upstreams = []templates.Upstream{{Name: "io", Zone: templates.ZoneSize(1), Servers: []templates.Server{
					{Node: "0123456789", Address: backend, Weight: weight, FailTimeout: time.Second}}}}
				config.Sites = []templates.Site{{Name: "chat", CatchAll: true, Sockets: []string{address}, Routes: []templates.Route{{
					Path: "/", Upstream: "io", Upgrade: true, ConnectTimeout: time.Second, ReadTimeout: time.Hour, SendTimeout: time.Hour,
					Tries: 1, BufferSize: 4096, MaxBodySize: 1 << 20}}}}
				b, err := set.Render(config)
				if err != nil {
					t.Fatal(err)
				}
				return b
			}
			if _, err := d.Apply(t.Context(), render(1)); err != nil {
				t.Fatal(err)
			}
			sockets := dial(t, port, 2)
			apply(t, d, render(1), Nothing)
			apply(t, d, render(2), Reloaded)
			alive(t, sockets)
			if live := d.Live(t.Context()); live.Revision != render(2).Revision || len(live.Generations) != 2 {
				t.Errorf("live: %+v", live)
			}
		})
	}
}
