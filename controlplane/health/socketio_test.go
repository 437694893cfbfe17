package health_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"sluice/controlplane/health"
	"sluice/internal/testport"
)

// engineScript is a Socket.IO server whose sessions can be counted: at /sessions those that were opened, and that are open.
const engineScript = `
const server = require('node:http').createServer((req, res) => {
  res.end(JSON.stringify({ opened, open: io.engine.clientsCount }));
});
const io = new (require('socket.io').Server)(server, JSON.parse(process.env.OPTIONS));
let opened = 0;
if (process.env.PREFIX) io.engine.generateId = () => process.env.PREFIX + '.' + require('node:crypto').randomUUID();
io.engine.on('connection', () => opened++);
server.listen(Number(process.env.PORT), '127.0.0.1', () => console.log('listens'));
`

// startEngine starts a real Socket.IO server.
func startEngine(t *testing.T, options, prefix string) (port int, process *os.Process) {
	t.Helper()
	port = testport.Free(t)
	cmd := exec.CommandContext(t.Context(), "node", "-e", engineScript)
	cmd.Dir = "../../examples/socketio"
	cmd.Env = append(os.Environ(), "PORT="+strconv.Itoa(port), "OPTIONS="+options, "PREFIX="+prefix)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("start a Socket.IO server: %v", err)
	}
	t.Cleanup(func() { _ = errors.Join(cmd.Process.Kill(), cmd.Wait()) })
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatalf("the Socket.IO server says %q: %v", line, err)
	}
	return port, cmd.Process
}

// sessions returns how many sessions a server of startEngine had, and has.
func sessions(t *testing.T, port int) (opened, open int) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://127.0.0.1:"+strconv.Itoa(port)+"/sessions", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var count struct{ Opened, Open int }
	text, _ := io.ReadAll(resp.Body)
	if err := json.Unmarshal(text, &count); err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	return count.Opened, count.Open
}

func TestEngineIO(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		options, prefix, check string
		state                  health.State
		proven, stranger       bool
		reason                 string
	}{
		"plain":               {`{}`, "", ``, health.Healthy, false, false, ""},
		"protocol 3 as well":  {`{"allowEIO3": true}`, "", ``, health.Healthy, false, false, ""},
		"only WebSocket":      {`{"transports": ["websocket"]}`, "n1", `identity: {sid: true}`, health.Healthy, true, false, ""},
		"other path":          {`{"path": "/io"}`, "", `path: /io/`, health.Healthy, false, false, ""},
		"wrong path":          {`{"path": "/io"}`, "", ``, health.Unhealthy, false, false, "what answers is no Engine.IO server: its answer to a handshake has no session id"},
		"itself":              {`{}`, "n1", `identity: {sid: true}`, health.Healthy, true, false, ""},
		"stranger":            {`{}`, "n2", `identity: {sid: true}`, health.Unhealthy, false, true, "another node answers there: its session ids begin with another id"},
		"longer id":           {`{}`, "n11", `identity: {sid: true}`, health.Unhealthy, false, true, "another node answers there: its session ids begin with another id"},
		"no id":               {`{}`, "", `identity: {sid: true}`, health.Healthy, false, false, "it answers, but its session ids do not begin with its id and a dot"},
		"by a path, which is": {`{"cors": {}}`, "", `identity: {path: /sessions}`, health.Unhealthy, false, true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			port, _ := startEngine(t, tt.options, tt.prefix)
			check := "type: engineio, fall: 1, timeout: 20s"
			if tt.check != "" {
				check += ", " + tt.check
			}
			n := target(t, "n1", check)
			n.Node.Port = port
			c := health.New(health.Options{Log: slog.New(slog.DiscardHandler)})
			stop := run(t, c)
			c.Set([]health.Target{n})
			v := until(t, c, n.Key(), func(v health.Verdict) bool { return v.State != health.Unknown })
			stop()
			if v.State != tt.state || v.Proven != tt.proven || v.Stranger != tt.stranger || tt.reason != "" && v.Reason != tt.reason {
				t.Errorf("%+v", v)
			}
			if name == "wrong path" {
				return
			}
			// Each check opened one session, and left none.
			deadline := time.Now().Add(30 * time.Second)
			for {
				opened, open := sessions(t, port)
				if opened > 0 && open == 0 {
					break
				}
				if time.Now().After(deadline) {
					t.Fatalf("%d sessions were opened, and %d are open", opened, open)
				}
			}
		})
	}
}

// A server that hangs is found out, although the kernel takes connections for it, and is back when it goes on.
func TestHungServer(t *testing.T) {
	t.Parallel()
	port, process := startEngine(t, `{}`, "n1")
	n := target(t, "n1", "type: engineio, interval: 1s, timeout: 1s, identity: {sid: true}")
	n.Node.Port = port
	c := health.New(health.Options{Log: slog.New(slog.DiscardHandler)})
	defer run(t, c)()
	c.Set([]health.Target{n})
	until(t, c, n.Key(), func(v health.Verdict) bool { return v.State == health.Healthy && v.Proven })
	if err := process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	v := until(t, c, n.Key(), func(v health.Verdict) bool { return v.State == health.Unhealthy })
	if v.Refused || v.Proven || !strings.Contains(v.Reason, "no answer in time") {
		t.Errorf("%+v", v)
	}
	if err := process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	until(t, c, n.Key(), func(v health.Verdict) bool { return v.State == health.Healthy && v.Proven })
}
