package templates_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"sluice/templates"
)

// TestZoneSize lets nginx fill the zones of the largest servers there are.
func TestZoneSize(t *testing.T) {
	t.Parallel()
	kinds := map[string]func(i int) string{
		"IPv4": func(i int) string { return fmt.Sprintf("10.%d.%d.%d:65535", 100+i>>16, i>>8&255, i&255) },
		"IPv6": func(i int) string {
			return fmt.Sprintf("[fd00:1111:2222:3333:4444:5555:%x:%x]:65535", 0xa000+i>>12, 0xa000+i&0xfff)
		},
		"unix": func(i int) string { return fmt.Sprintf("unix:/%s%07d", strings.Repeat("x", 99), i) },
	}
	for kind, address := range kinds {
		for _, n := range []int{1, 10, 1000, 10_000} {
			t.Run(fmt.Sprint(kind, "/", n), func(t *testing.T) {
				t.Parallel()
				servers := make([]templates.Server, n)
				for i := range servers {
					servers[i] = server(address(i))
				}
				cfg := socketIOSite()
				cfg.Upstreams[0].Servers = servers
				cfg.Upstreams[0].Zone = templates.ZoneSize(n)
				nginxTest(t, nginxBinary(t), stage(t, shortDir(t), cfg))
			})
		}
	}
}

// TestManyNames lets nginx build its hash tables: too small ones are an error or a warning.
func TestManyNames(t *testing.T) {
	t.Parallel()
	long := strings.Repeat(strings.Repeat("l", 48)+".", 4) + "com" // 199 bytes
	for _, tt := range []struct {
		name string
		host func(i int) string
		n    int
	}{
		{"one long name", func(int) string { return long }, 1},
		{"10,000 names", func(i int) string { return fmt.Sprintf("host-%d.example.com", i) }, 10_000},
		{"10,000 names and wildcards", func(i int) string { return []string{"", "*."}[i%2] + fmt.Sprintf("h%d.example.com", i/2) }, 10_000},
		{"2,000 long names", func(i int) string { return fmt.Sprintf("%04d%s", i, long) }, 2000},
		{"short and long names", func(i int) string {
			if i%100 == 0 {
				return fmt.Sprintf("%04d%s", i, long)
			}
			return fmt.Sprintf("h%d.io", i)
		}, 10_000},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cfg := socketIOSite()
			cfg.Sites[0].Hosts = nil
			for i := range tt.n {
				cfg.Sites[0].Hosts = append(cfg.Sites[0].Hosts, tt.host(i))
			}
			nginxTest(t, nginxBinary(t), stage(t, shortDir(t), cfg))
		})
	}
}

// TestManyTrustedSets has five variables for each of 500 sets of trusted proxies.
func TestManyTrustedSets(t *testing.T) {
	t.Parallel()
	cfg := socketIOSite()
	for i := range 500 {
		site := cfg.Sites[0]
		site.Name, site.Hosts = fmt.Sprintf("site-%d", i), []string{fmt.Sprintf("h%d.example.com", i)}
		site.RealIP = &templates.RealIP{Trusted: []string{fmt.Sprintf("10.%d.%d.0/24", i>>8, i&255)}, Header: "X-Forwarded-For"}
		r := site.Routes[0]
		r.AppendForwardedFor = true
		site.Routes = []templates.Route{r}
		cfg.Sites = append(cfg.Sites, site)
	}
	dir := shortDir(t)
	nginxTest(t, nginxBinary(t), stage(t, dir, cfg))
	if got, _ := filepath.Glob(filepath.Join(dir, "http", "site-*.conf")); len(got) != 501 {
		t.Errorf("%d sites", len(got))
	}
}
