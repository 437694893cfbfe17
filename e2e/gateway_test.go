package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"sluice/controlplane"
	"sluice/internal/testport"
)

// GatewayOptions are what differs between gateways; the zero value is one with an etcd of its own.
type GatewayOptions struct {
	Name     string   // default "gw"
	Registry string   // default: the embedded etcd
	Host     *Host    // where it runs; default: this machine
	Args     []string // further flags of sluice run
	Env      []string
}

// Gateway is a running sluice with its nginx. Stop, Kill and Start can follow each other; at the end of the test both are
// ended, nginx too where it was told to outlive sluice.
type Gateway struct {
	*Process // the sluice that runs now

	Name  string
	Dir   string // the state directory
	API   string // URL
	Port  int    // free for a listener of nginx
	Port2 int    // another one

	tb     testing.TB
	host   *Host
	client *http.Client // of the API
	argv   []string
	env    []string
}

// startGateway starts a gateway and waits until its API answers.
func startGateway(tb testing.TB, o GatewayOptions) *Gateway {
	tb.Helper()
	if o.Name == "" {
		o.Name = "gw"
	}
	listen := "127.0.0.1:" + strconv.Itoa(testport.Free(tb))
	g := &Gateway{
		Name: o.Name, API: "http://" + listen, Port: testport.Free(tb), Port2: testport.Free(tb),
		tb: tb, host: o.Host, client: http.DefaultClient, env: o.Env, Dir: filepath.Join(tempDir(tb), o.Name),
	}
	if o.Host != nil {
		g.client = o.Host.relayed(tb, listen)
	}
	g.argv = append(o.Host.Command(o.Env...), sluiceBinary, "run", "--name", o.Name, "--state-dir", g.Dir, "--listen", listen)
	if o.Registry != "" {
		g.argv = append(g.argv, "--registry", o.Registry)
	}
	if !slices.ContainsFunc(o.Args, func(arg string) bool { return strings.HasPrefix(arg, "--on-exit") }) {
		g.argv = append(g.argv, "--on-exit", "quit")
	}
	g.argv = append(g.argv, o.Args...)
	tb.Cleanup(func() { endNginx(tb, g.Dir) })
	g.Start()
	return g
}

// Start starts sluice, for the first time or again in the same state directory, and waits until its API answers.
func (g *Gateway) Start() {
	g.tb.Helper()
	g.StartOnly()
	eventually(g.tb, 20*time.Second, g.Name+" answers", func(ctx context.Context) error {
		select {
		case <-g.Done():
			g.tb.Fatalf("sluice %s has ended with code %d", g.Name, g.ExitCode())
		default:
		}
		_, err := g.status(ctx)
		return err
	})
}

// StartOnly starts sluice and does not wait.
func (g *Gateway) StartOnly() {
	g.tb.Helper()
	g.Process = startProcess(g.tb, "sluice "+g.Name, g.env, g.argv...)
	// Before it would be killed, so that its nginx ends with it. What it did until then is looked at in any case.
	g.tb.Cleanup(g.Stop)
}

// Kill ends sluice with SIGKILL. Its nginx lives on.
func (g *Gateway) Kill() {
	g.Signal(syscall.SIGKILL)
	<-g.Done()
}

// URL returns where nginx's listener on Port is.
func (g *Gateway) URL() string { return "http://" + g.Addr() }

// Addr is URL without the scheme.
func (g *Gateway) Addr() string {
	return g.host.Address() + ":" + strconv.Itoa(g.Port)
}

// CLI runs a client command against the gateway's API, and returns what it wrote.
func (g *Gateway) CLI(ctx context.Context, stdin string, args ...string) (string, error) {
	api := "SLUICE_API=" + g.API
	argv := append(append(g.host.Command(api), sluiceBinary), args...)
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), api)
	cmd.Stdin = strings.NewReader(stdin)
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("sluice %s: %w: %s", strings.Join(args, " "), err, stderr.String())
	}
	return stdout.String(), nil
}

// Apply applies a document of the desired state.
func (g *Gateway) Apply(document string) {
	g.tb.Helper()
	if _, err := g.CLI(g.tb.Context(), document, "apply", "-f", "-"); err != nil {
		g.tb.Fatalf("apply: %v\n%s", err, document)
	}
}

// Status returns the gateway's status, as its API tells it.
func (g *Gateway) Status() controlplane.Status {
	g.tb.Helper()
	status, err := g.status(g.tb.Context())
	if err != nil {
		g.tb.Fatal(err)
	}
	return status
}

func (g *Gateway) status(ctx context.Context) (controlplane.Status, error) {
	var status controlplane.Status
	text, err := g.get(ctx, "/v1/self")
	if err != nil {
		return status, err
	}
	if err := json.Unmarshal(text, &status); err != nil {
		return status, fmt.Errorf("decode the status %q: %w", text, err)
	}
	return status, nil
}

// get asks the gateway's API.
func (g *Gateway) get(ctx context.Context, path string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, g.API+path, http.NoBody)
	if err != nil {
		return nil, err
	}
	resp, err := g.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("GET %s: %s: %s", path, resp.Status, text)
	}
	return text, err
}

// Wait waits until check likes the gateway's status.
func (g *Gateway) Wait(within time.Duration, what string, check func(controlplane.Status) error) controlplane.Status {
	g.tb.Helper()
	var last controlplane.Status
	eventually(g.tb, within, g.Name+": "+what, func(ctx context.Context) error {
		status, err := g.status(ctx)
		if err != nil {
			return err
		}
		last = status
		if err := check(status); err != nil {
			text, _ := json.Marshal(status) // for the message only
			return fmt.Errorf("%w\nstatus: %s", err, text)
		}
		return nil
	})
	return last
}

// WaitNodes waits until exactly n nodes are rendered, over all upstreams, and what is wanted is live.
func (g *Gateway) WaitNodes(within time.Duration, n int) controlplane.Status {
	g.tb.Helper()
	return g.Wait(within, fmt.Sprintf("%d nodes are live", n), func(s controlplane.Status) error {
		if s.Nodes != n || s.Phase != controlplane.InStep || s.RevisionLive != s.RevisionWanted {
			return fmt.Errorf("%d nodes, %s", s.Nodes, s.Phase)
		}
		return nil
	})
}

// WaitLive waits until every committed change up to now is live.
func (g *Gateway) WaitLive(within time.Duration) controlplane.Status {
	g.tb.Helper()
	return g.Wait(within, "in step", func(s controlplane.Status) error {
		if s.Phase != controlplane.InStep || s.SeqLive != s.SeqWanted || s.SeqLive == 0 {
			return fmt.Errorf("%s at seq %d of %d", s.Phase, s.SeqLive, s.SeqWanted)
		}
		return nil
	})
}

// Nginx returns the ids of the processes of this gateway's nginx, orphaned workers too.
func (g *Gateway) Nginx() []int { return nginxPIDs(g.Dir) }

// nginxPIDs finds nginx processes by the files that they have open below dir: that finds workers without a master too.
func nginxPIDs(dir string) []int {
	procs, _ := filepath.Glob("/proc/[0-9]*")
	var pids []int
	for _, proc := range procs {
		comm, _ := os.ReadFile(filepath.Join(proc, "comm"))
		if strings.TrimSpace(string(comm)) != "nginx" || !opensBelow(proc, dir+"/") {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(proc)); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

func opensBelow(proc, prefix string) bool {
	fds, _ := filepath.Glob(filepath.Join(proc, "fd", "*"))
	return slices.ContainsFunc(fds, func(fd string) bool {
		target, err := os.Readlink(fd)
		return err == nil && strings.HasPrefix(target, prefix)
	})
}

// endNginx ends what is left of an nginx when its test is over.
func endNginx(tb testing.TB, dir string) {
	tb.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for pids := nginxPIDs(dir); len(pids) > 0; pids = nginxPIDs(dir) {
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		if time.Now().After(deadline) {
			tb.Errorf("nginx processes %v do not end", pids)
			return
		}
	}
}
