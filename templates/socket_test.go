package templates_test

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"

	"sluice/internal/testport"
	"sluice/templates"
)

func portOf(address string) string {
	_, port, _ := net.SplitHostPort(address)
	return port
}

// TestSocketsOfOnePort listens on all addresses of a port and on one of them as well: only one of the two is bound.
func TestSocketsOfOnePort(t *testing.T) {
	t.Parallel()
	port := strconv.Itoa(testport.Free(t))
	n := newNode(t, nil)
	cfg, _ := plainSite(t, upstream("io", "", server(n.address)), route("/", "io"))
	all, one, six := "*:"+port, "127.0.0.1:"+port, "[::]:"+port
	cfg.Sockets = []templates.Socket{{Address: all}, {Address: one}, {Address: six}, {Address: "[::1]:" + port}}
	cfg.Sites[0].Sockets = []string{all, six}
	cfg.Sites = append(cfg.Sites, templates.Site{
		Name: "local", Hosts: []string{"local.example.com"}, Sockets: []string{one, "[::1]:" + port},
		Routes: []templates.Route{route("/", "io")},
	})
	start(t, cfg)
	for _, tt := range []struct {
		address, host string
		status        int
	}{
		{one, "local.example.com", http.StatusOK},
		{one, "chat.example.com", http.StatusMisdirectedRequest}, // that socket has another site
		{"127.0.0.2:" + port, "chat.example.com", http.StatusOK},
		{"[::1]:" + port, "local.example.com", http.StatusOK},
	} {
		if res, _ := do(t, request(t, "GET", tt.address, "/", "", "Host", tt.host)); res.StatusCode != tt.status {
			t.Errorf("%s on %s: status %d, want %d", tt.host, tt.address, res.StatusCode, tt.status)
		}
	}
}

func TestCatchAll(t *testing.T) {
	t.Parallel()
	n := newNode(t, nil)
	cfg, address := plainSite(t, upstream("io", "", server(n.address)), route("/", ""))
	cfg.Sockets[0].CatchAll = true
	cfg.Sites = append(cfg.Sites, templates.Site{
		Name: "rest", CatchAll: true, Sockets: []string{address}, Routes: []templates.Route{route("/", "io")},
	})
	start(t, cfg)
	for host, status := range map[string]int{
		"chat.example.com": http.StatusServiceUnavailable, "anything.example.org": http.StatusOK, "10.0.0.1": http.StatusOK,
	} {
		if res, _ := do(t, request(t, "GET", address, "/", "", "Host", host)); res.StatusCode != status {
			t.Errorf("%s: status %d, want %d", host, res.StatusCode, status)
		}
	}
}

// TestKeepaliveOfClients looks at the timer that the kernel keeps for nginx's end of a client's connection.
func TestKeepaliveOfClients(t *testing.T) {
	t.Parallel()
	cfg, address := plainSite(t, upstream("io", "", server(dead(t))), route("/", ""))
	start(t, cfg)
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	client := conn.LocalAddr().(*net.TCPAddr).Port
	port, _ := strconv.Atoi(portOf(address))
	eventually(t, "nginx's end of the connection has a keepalive timer of 60 s", func() error {
		table, err := os.ReadFile("/proc/net/tcp")
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(table)) {
			// sl, local, remote, state, queues, "timer:hundredths of a second": 02 is keepalive.
			fields := strings.Fields(line)
			if !strings.HasSuffix(fields[1], fmt.Sprintf(":%04X", port)) || !strings.HasSuffix(fields[2], fmt.Sprintf(":%04X", client)) {
				continue
			}
			kind, left, _ := strings.Cut(fields[5], ":")
			hundredths, err := strconv.ParseInt(left, 16, 64)
			if err != nil || kind != "02" || hundredths < 4000 || hundredths > 6000 {
				return fmt.Errorf("timer %s", fields[5])
			}
			return nil
		}
		return errors.New("no such connection")
	})
}
