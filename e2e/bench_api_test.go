//go:build bench

package e2e

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"sluice/registry"
	"sluice/registry/etcd"
)

const (
	benchObjects = 10_000
	benchBeating = 500
)

// benchAPI measures the API of one sluice with 10,000 objects, beside what its own etcd takes for the same reads and writes.
// The sites are another group's, so that what nginx tests is small: how long it takes with many is nginx's affair.
func benchAPI(t *testing.T, r *report) {
	g := startGateway(t, GatewayOptions{})
	g.Apply(document(g.Port, "least_conn"))
	bare := g.etcdClient(t)
	reg, err := etcd.New(t.Context(), etcd.Config{Endpoints: bare.Endpoints()})
	if err != nil {
		t.Fatal(err)
	}
	defer reg.Close()
	fillSites(t, reg)
	g.WaitLive(time.Minute)
	client := &benchClient{t: t, api: g.API}

	benchLists(t, r, client, bare)
	benchApply(t, r, client, bare)
}

// etcdClient speaks to the embedded etcd without sluice.
func (g *Gateway) etcdClient(t *testing.T) *clientv3.Client {
	bare, err := clientv3.New(clientv3.Config{Endpoints: []string{"unix://" + filepath.Join(g.Dir, "etcd", "client.sock")}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = bare.Close() })
	return bare
}

// fillSites commits sites of another group.
func fillSites(t *testing.T, reg registry.Registry) {
	var ops []registry.Op
	for i := range benchObjects {
		name := fmt.Sprintf("s%05d", i)
		value := fmt.Appendf(nil, `{"owner":"team-%d","groups":["other"],"hosts":["%s.example.com"],"listeners":[{"port":8080},{"port":8443}],`+
			`"routes":[{"path":"/socket.io/","kind":"socketio","upstream":"io"},{"path":"/","kind":"http","upstream":"io"}]}`, i%500, name)
		ops = append(ops, registry.Op{Ref: registry.Ref{Kind: registry.KindSite, Name: name}, Value: value})
		if len(ops) == registry.MaxTxObjects || i == benchObjects-1 {
			if _, err := reg.Commit(t.Context(), registry.Tx{Ops: ops}); err != nil {
				t.Fatal(err)
			}
			ops = nil
		}
	}
}

// benchClient sends requests on connections that are kept.
type benchClient struct {
	t   *testing.T
	api string
}

func (c *benchClient) do(method, path, body string) {
	req, err := http.NewRequestWithContext(c.t.Context(), method, c.api+path, strings.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode >= http.StatusBadRequest {
		c.t.Fatalf("%s %s: %s %v: %s", method, path, resp.Status, err, text)
	}
}

// beside times two things in turns, and adds their medians to the report.
func (r *report) beside(what, aim, other string, ours, theirs func(round int)) {
	var a, b []time.Duration
	for round := range 2*rounds + 1 {
		began := time.Now()
		ours(round)
		between := time.Now()
		theirs(round)
		a, b = append(a, between.Sub(began)), append(b, time.Since(between))
	}
	r.add(what, ms(median(a)), ratio(median(a), median(b))+" of "+other+", "+ms(median(b)), aim)
}

func benchLists(t *testing.T, r *report, client *benchClient, bare *clientv3.Client) {
	const sites = "/sluice/default/state/objects/site/"
	for i := range 1000 {
		client.do(http.MethodPut, fmt.Sprintf("/v1/services/listed/nodes/n%04d", i), `{"address": "10.0.0.1", "port": 6001, "ttl": "10m"}`)
	}
	for _, list := range []struct {
		what, path, key string
		limit           int64
	}{
		{"page of 1,000 of 10,000 sites, the default", "/v1/sites?from=s05000", sites + "s05000", 1000},
		{"page of 100 of 10,000 sites", "/v1/sites?from=s05000&limit=100", sites + "s05000", 100},
		{"4 sites of an owner, of 10,000: the first 2,000 are looked through", "/v1/sites?owner=team-7", sites, 2000},
		{"page of 1,000 nodes", "/v1/nodes?service=listed", "/sluice/default/state/nodes/listed/", 1000},
	} {
		r.beside(list.what, "50 ms", "a bare range of etcd",
			func(int) { client.do(http.MethodGet, list.path, "") },
			func(int) {
				if _, err := bare.Get(t.Context(), list.key, clientv3.WithRange(clientv3.GetPrefixRangeEnd(sites[:len("/sluice/")])), clientv3.WithLimit(list.limit)); err != nil {
					t.Fatal(err)
				}
			})
	}
}

func benchApply(t *testing.T, r *report, client *benchClient, bare *clientv3.Client) {
	for _, object := range []struct{ what, path, body, aim string }{
		{"an approval, which is not tried", "/v1/approvals/io", `{"note": "%d"}`, "20 ms"},
		{"an override, which changes no file", "/v1/overrides/io/n1", `{"note": "%d"}`, "20 ms"},
		{"a site of another group, which changes no file", "/v1/sites/s00007", `{"groups": ["other"], "hosts": ["%d.example.com"], "listeners": [{"port": 8080}], "routes": [{"upstream": "io"}]}`, "20 ms"},
		{"an upstream that nginx tries", "/v1/upstreams/io", `{"balance": {"method": "least_conn"}, "keepalive": {"connections": %d}}`, "20 ms and nginx -t"},
	} {
		r.beside("apply of "+object.what, object.aim, "a bare transaction of the same three keys",
			func(round int) { client.do(http.MethodPut, object.path, fmt.Sprintf(object.body, 16+round)) },
			func(round int) {
				value := strings.Repeat("x", 300) + strconv.Itoa(round)
				_, err := bare.Txn(t.Context()).Then(clientv3.OpPut("/bench/head", value), clientv3.OpPut("/bench/object", value), clientv3.OpPut("/bench/history/"+strconv.Itoa(round), value)).Commit()
				if err != nil {
					t.Fatal(err)
				}
			})
	}
}

// benchBeats measures what 500 beats a second cost the process, etcd included, beside an etcd that takes them without sluice.
func benchBeats(t *testing.T, r *report) {
	g := startGateway(t, GatewayOptions{})
	g.Apply(document(g.Port, "least_conn"))
	bare := g.etcdClient(t)
	client := &benchClient{t: t, api: g.API}
	beat := func(_ context.Context, i int) {
		client.do(http.MethodPut, fmt.Sprintf("/v1/services/io/nodes/b%03d", i), fmt.Sprintf(`{"address": "127.0.0.1", "port": %d, "ttl": "60s"}`, 10_000+i))
	}
	for i := range benchBeating {
		beat(t.Context(), i)
	}
	g.WaitNodes(time.Minute, benchBeating)
	pause(t, 5*time.Second)
	ours := g.cpuShare(t, beat) - g.cpuShare(t, func(context.Context, int) {})

	leases := make([]clientv3.LeaseID, benchBeating)
	for i := range leases {
		granted, err := bare.Grant(t.Context(), 60)
		if err != nil {
			t.Fatal(err)
		}
		leases[i] = granted.ID
		if _, err := bare.Put(t.Context(), fmt.Sprintf("/bench/node/%03d", i), "x", clientv3.WithLease(granted.ID)); err != nil {
			t.Fatal(err)
		}
	}
	theirs := g.cpuShare(t, func(ctx context.Context, i int) {
		if _, err := bare.KeepAliveOnce(ctx, leases[i]); err != nil {
			t.Error(err)
		}
	}) - g.cpuShare(t, func(context.Context, int) {})
	r.add("500 beats a second, of one core", fmt.Sprintf("%.0f %%", 100*ours), fmt.Sprintf("%.1f of leases that etcd keeps alive, %.0f %%", ours/theirs, 100*theirs), "33 %")
}

// cpuShare returns how much of a core the process takes while something is done 500 times a second.
func (g *Gateway) cpuShare(t *testing.T, do func(ctx context.Context, i int)) float64 {
	const workers, lasting = 10, 10 * time.Second
	ctx, cancel := context.WithTimeout(t.Context(), lasting)
	defer cancel()
	before, began := g.cpu(t), time.Now()
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			tick := time.NewTicker(workers * time.Second / benchBeating)
			defer tick.Stop()
			for i := w; ; i = (i + workers) % benchBeating {
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
					do(t.Context(), i)
				}
			}
		})
	}
	wg.Wait()
	return (g.cpu(t) - before).Seconds() / time.Since(began).Seconds()
}

// cpu returns the time that the process has computed, by the kernel's clock of 100 ticks a second.
func (g *Gateway) cpu(t *testing.T) time.Duration {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", g.PID()))
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(text), ") ")
	fields := strings.Fields(after)
	var ticks time.Duration
	for _, field := range fields[11:13] { // utime and stime
		n, err := strconv.Atoi(field)
		if err != nil {
			t.Fatal(err)
		}
		ticks += time.Duration(n)
	}
	return ticks * 10 * time.Millisecond
}
