package templates_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"sluice/internal/testport"
	"sluice/templates"
)

// node is a server behind nginx that remembers what it was asked.
type node struct {
	address string
	server  *httptest.Server

	mu       sync.Mutex
	requests []*http.Request
	bodies   []string
	opened   int // connections
}

// newNode starts a node; its answers are handler's, or empty.
func newNode(tb testing.TB, handler http.HandlerFunc) *node {
	tb.Helper()
	n := &node{}
	n.server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		n.mu.Lock()
		n.requests = append(n.requests, r)
		n.bodies = append(n.bodies, string(body))
		n.mu.Unlock()
		if handler != nil {
			handler(w, r)
		}
	}))
	n.server.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			n.mu.Lock()
			n.opened++
			n.mu.Unlock()
		}
	}
	n.server.Start()
	tb.Cleanup(n.server.Close)
	n.address = n.server.Listener.Addr().String()
	return n
}

func (n *node) count() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.requests)
}

func (n *node) connections() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.opened
}

// last returns the newest request and its body.
func (n *node) last(tb testing.TB) (*http.Request, string) {
	tb.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.requests) == 0 {
		tb.Fatal("the node was not asked")
	}
	return n.requests[len(n.requests)-1], n.bodies[len(n.bodies)-1]
}

// dead returns the address of a node that refuses connections.
func dead(tb testing.TB) string {
	tb.Helper()
	return "127.0.0.1:" + strconv.Itoa(testport.Free(tb))
}

// plainSite is a site for chat.example.com on one plain socket of 127.0.0.1, whose address it returns too.
func plainSite(tb testing.TB, u templates.Upstream, routes ...templates.Route) (templates.Config, string) {
	tb.Helper()
	address := "127.0.0.1:" + strconv.Itoa(testport.Free(tb))
	return templates.Config{
		Capabilities: localCaps(tb),
		Upstreams:    []templates.Upstream{u},
		Sockets:      []templates.Socket{{Address: address}},
		Sites: []templates.Site{{
			Name: "chat", Hosts: []string{"chat.example.com"}, Sockets: []string{address}, Routes: routes,
		}},
	}, address
}

// request makes a request to address for the site's name, with headers in pairs.
func request(tb testing.TB, method, address, path, body string, headers ...string) *http.Request {
	tb.Helper()
	req, err := http.NewRequestWithContext(tb.Context(), method, "http://"+address+path, strings.NewReader(body))
	if err != nil {
		tb.Fatal(err)
	}
	req.Host = "chat.example.com"
	for i := 0; i < len(headers); i += 2 {
		if headers[i] == "Host" {
			req.Host = headers[i+1]
		} else {
			req.Header.Add(headers[i], headers[i+1])
		}
	}
	return req
}

// do sends a request on a fresh connection and follows no redirect.
func do(tb testing.TB, req *http.Request) (*http.Response, string) {
	tb.Helper()
	client := &http.Client{
		Timeout:       patience,
		Transport:     &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return doWith(tb, client, req)
}

func doWith(tb testing.TB, client *http.Client, req *http.Request) (*http.Response, string) {
	tb.Helper()
	res, err := client.Do(req)
	if err != nil {
		tb.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		tb.Fatal(err)
	}
	return res, string(body)
}

// raw sends text as it is and returns the first answer.
func raw(tb testing.TB, address, text string) (*http.Response, string) {
	tb.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		tb.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, text); err != nil {
		tb.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		tb.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		tb.Fatal(err)
	}
	return res, string(body)
}

func TestControlServerAnswersReloadAndRevision(t *testing.T) {
	t.Parallel()
	cfg, _ := plainSite(t, upstream("io", "", server(dead(t))), route("/", "io"))
	g := start(t, cfg)
	if got, err := g.ask("/revision"); err != nil || got != g.revision {
		t.Errorf("/revision = %q, %v; want %q", got, err, g.revision)
	}
}

// TestOperatorsNginx runs a nginx.conf that is not ours: includes and certificates are found although the paths are
// relative to that file.
func TestOperatorsNginx(t *testing.T) {
	t.Parallel()
	n := newNode(t, nil)
	cfg, address := plainSite(t, upstream("io", "", server(n.address)), route("/", "io"))
	dir := shortDir(t)
	cfg.HTTPOnly, cfg.Dir = true, filepath.Join(dir, "current")
	set := mustNew(t)
	bundle, err := set.Render(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctl := controlOf(t, bundle.Revision)
	control, err := set.RenderControl(cfg, ctl)
	if err != nil {
		t.Fatal(err)
	}
	writeFiles(t, cfg.Dir, append(bundle.Files, control...))
	conf := filepath.Join(dir, "nginx.conf")
	text := fmt.Sprintf(operatorsConf, dir)
	if user := userOfWorkers(); user != "" {
		text = "user " + user + ";\n" + text
	}
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, dir, conf, ctl)
	if res, _ := do(t, request(t, "GET", address, "/", "")); res.StatusCode != http.StatusOK {
		t.Errorf("status %d", res.StatusCode)
	}
}

func TestAccessLog(t *testing.T) {
	t.Parallel()
	n := newNode(t, nil)
	r := socketIO("/", "io")
	cfg, address := plainSite(t, upstream("io", "", server(n.address)), r)
	path := filepath.Join(t.TempDir(), "access.log")
	cfg.Sites[0].AccessLog = path
	g := start(t, cfg)

	const secret = "s3cr3t-session"
	do(t, request(t, "POST", address, `/socket.io/%22quoted%22%0A?EIO=4&sid=`+secret, "2probe",
		"Referer", "http://chat.example.com/?sid="+secret, "User-Agent", `"evil" \ agent`))
	raw(t, address, "GET / HTTP/1.1\r\nHost: chat.example.com\r\nHost: twice\r\nConnection: close\r\n\r\n")
	do(t, request(t, "GET", address, "/plain", "", "Connection", "upgrade", "Upgrade", `x","status":999,"x":"`))

	lines := map[string]map[string]any{} // by method and status
	eventually(t, "all three requests are logged", func() error {
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if strings.Contains(string(text), secret) || strings.Contains(string(text), "sid") {
			t.Fatalf("the log has the session's id:\n%s", text)
		}
		for line := range strings.Lines(string(text)) {
			var v map[string]any
			if err := json.Unmarshal([]byte(line), &v); err != nil {
				t.Fatalf("%q is not JSON: %v", line, err)
			}
			lines[fmt.Sprint(v["method"], " ", v["status"])] = v
		}
		if len(lines) < 3 {
			return fmt.Errorf("%d lines", len(lines))
		}
		return nil
	})
	want := map[string]any{
		"client": "127.0.0.1", "method": "POST", "host": "chat.example.com", "uri": "/socket.io/\"quoted\"\n",
		"protocol": "HTTP/1.1", "upgrade": "", "status": 200.0, "bytes": 0.0, "node": n.address, "nodeStatus": "200",
		"site": "chat", "revision": g.revision,
	}
	post := lines["POST 200"]
	for key, value := range want {
		if post[key] != value {
			t.Errorf("%s = %v, want %v", key, post[key], value)
		}
	}
	for _, key := range []string{"time", "requestTime", "connectTime", "responseTime"} {
		if post[key] == nil || post[key] == "" {
			t.Errorf("%s is missing in %v", key, post)
		}
	}
	if refused := lines["GET 400"]; refused["site"] != "" {
		t.Errorf("a request that was refused before it had a site: %v", refused)
	}
	if injected := lines["GET 200"]; injected["upgrade"] != "" {
		t.Errorf("a header of the client's got into the line: %v", injected)
	}
	if log, err := os.ReadFile(g.errorLog); err != nil || strings.Contains(string(log), "warn") {
		t.Errorf("nginx warns: %v\n%s", err, log)
	}
}
