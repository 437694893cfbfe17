package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"sluice/api"
	"sluice/controlplane"
	"sluice/controlplane/nginx"
)

// level is how serious a finding is.
type level string

const (
	fine level = "ok"
	warn level = "warn"
	fail level = "FAIL"
)

// finding is what one check of doctor found.
type finding struct {
	Level   level  `json:"level"`
	Check   string `json:"check"`
	Message string `json:"message"`
	Mend    string `json:"mend,omitempty"`
}

// doctorFlags are the settings of sluice doctor.
type doctorFlags struct {
	client            clientFlags
	output            outputFlag
	nginx             string
	stateDir          string
	workerConnections int
	local             bool
}

func newDoctorCommand() *cobra.Command {
	var f doctorFlags
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Look for what will hurt, on this machine and in the fleet",
		Long: `Look for what will hurt, on this machine and in the fleet: nginx and what it can do, limits of descriptors, ports and queues,
the state directory, the registry, clocks, gateways that lag or alarm, certificates that expire, objects that nothing can serve.
Each finding says how to mend it. Exits with code 1 when something fails; a warning is none.`,
		Example: `  sluice doctor
  sluice doctor --local            # without asking the API
  sluice doctor -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := fillFlags(cmd.Flags(), ""); err != nil {
				return usageError(err)
			}
			if err := f.output.check(); err != nil {
				return err
			}
			findings, err := f.examine(cmd.Context())
			if err != nil {
				return err
			}
			if f.output.text() {
				err = writeFindings(cmd.OutOrStdout(), findings)
			} else {
				err = f.output.write(cmd.OutOrStdout(), findings)
			}
			if err != nil {
				return err
			}
			for _, found := range findings {
				if found.Level == fail {
					return &exitError{code: exitFailed}
				}
			}
			return nil
		},
	}
	f.client.register(cmd.Flags())
	f.output.register(cmd)
	flags := cmd.Flags()
	flags.StringVar(&f.nginx, "nginx", "", "nginx or OpenResty binary (default: the first of openresty and nginx that is found)")
	flags.StringVar(&f.stateDir, "state-dir", "/var/lib/sluice", "directory of everything that sluice keeps")
	flags.IntVar(&f.workerConnections, "worker-connections", 16384, "connections per nginx worker, as of sluice run")
	flags.BoolVar(&f.local, "local", false, "look at this machine alone, and do not ask the API")
	return cmd
}

func (f *doctorFlags) examine(ctx context.Context) ([]finding, error) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return nil, fmt.Errorf("read the limit of open files: %w", err)
	}
	m := machine{proc: os.DirFS("/proc"), openFiles: limit.Max}
	findings := append(f.examineNginx(ctx), m.examine(f.workerConnections)...)
	findings = append(findings, examineStateDir(f.stateDir))
	if f.local {
		return findings, nil
	}
	return append(findings, f.examineFleet(ctx)...), nil
}

func (f *doctorFlags) examineNginx(ctx context.Context) []finding {
	binary := f.nginx
	if binary == "" {
		found, err := findNginx()
		if err != nil {
			return []finding{{fail, "nginx", err.Error(), "apt-get install nginx-core"}}
		}
		binary = found
	}
	b, err := nginx.Probe(ctx, binary)
	if err != nil {
		return []finding{{fail, "nginx", err.Error(), "install nginx 1.18 or newer, or name its binary with --nginx"}}
	}
	findings := []finding{{fine, "nginx", b.Path + " " + b.Version, ""}}
	for _, c := range []struct {
		has        bool
		level      level
		what, mend string
	}{
		{b.Caps.SSL, fail, "it is built without TLS (http_ssl_module)", "install a build that has it: no site with tls can be served"},
		{b.Caps.Realip, fail, "it is built without http_realip_module", "install a build that has it: the client's address cannot be known behind a balancer, and ip_hash sends all to one node"},
		{b.Caps.HTTP2, warn, "it is built without http_v2_module", "leave http2 out of listeners"},
		{b.Caps.RejectHandshake, warn, "it does not know ssl_reject_handshake (1.19.4)", "upgrade: clients that ask for an unknown name get some certificate"},
		{b.Caps.KeepaliveMinTimeout, warn, "it does not know keepalive_min_timeout (1.27.4)", "a reload can reset a request on a connection that a client uses again; upgrade where this matters"},
	} {
		if !c.has {
			findings = append(findings, finding{c.level, "nginx", c.what, c.mend})
		}
	}
	return findings
}

func examineStateDir(dir string) finding {
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return finding{warn, "state directory", dir + " does not exist yet", "sluice run makes it; name another one with --state-dir"}
	case err != nil:
		return finding{fail, "state directory", err.Error(), "let the user that sluice runs as read it"}
	case info.Mode().Perm()&0o022 != 0:
		return finding{fail, "state directory", fmt.Sprintf("%s can be written by others (%s)", dir, info.Mode().Perm()), "chmod go-w " + dir + ": what is there becomes nginx's configuration"}
	}
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err == nil {
		if free := int64(fs.Bavail) * fs.Bsize >> 20; free < 512 {
			return finding{warn, "state directory", fmt.Sprintf("its disk has %d MB left", free), "make room: an embedded etcd stops taking changes at 160 MB"}
		}
	}
	return finding{fine, "state directory", dir, ""}
}

func (f *doctorFlags) examineFleet(ctx context.Context) []finding {
	client, err := f.client.client()
	if err != nil {
		return []finding{{fail, "api", err.Error(), ""}}
	}
	began := time.Now()
	resp, err := client.ListGatewaysWithResponse(ctx, &api.ListGatewaysParams{})
	took := time.Since(began)
	if err := api.Check(resp, err); err != nil {
		return []finding{{fail, "api", err.Error(), "is sluice running? --api names its address, --local leaves it out"}}
	}
	findings := []finding{{fine, "api", fmt.Sprintf("answers after %d ms, the registry's answer included", took.Milliseconds()), ""}}
	if took > time.Second {
		findings[0].Level, findings[0].Mend = warn, "look at the registry's disk and network: each change and each beat waits for it"
	}
	if far := clockSkew(resp.HTTPResponse.Header.Get("Date"), began, time.Now()); far > 2*time.Second {
		findings = append(findings, finding{warn, "clock", fmt.Sprintf("this machine's and the instance's are %s apart", far.Round(time.Second)),
			"run chrony or systemd-timesyncd on both: tokens, certificates and the history's times depend on it"})
	}
	findings = append(findings, examineGateways(resp.JSON200.Items, time.Now())...)
	return append(findings, examineServices(ctx, client)...)
}

// clockSkew returns how far a Date header, which has whole seconds, is from the time of its answer.
func clockSkew(header string, from, to time.Time) time.Duration {
	date, err := time.Parse(time.RFC1123, header)
	switch {
	case err != nil:
		return 0
	case date.Before(from.Add(-time.Second)):
		return from.Add(-time.Second).Sub(date)
	case date.After(to):
		return date.Sub(to)
	default:
		return 0
	}
}

// certificateSoon is when a certificate that expires becomes a warning: Let's Encrypt's are renewed 30 days before.
const certificateSoon = 21 * 24 * time.Hour

// examineGateways looks at what the gateways report.
func examineGateways(gateways []controlplane.Status, now time.Time) []finding {
	var findings []finding
	add := func(l level, gateway, mend, format string, args ...any) {
		findings = append(findings, finding{l, "gateway " + gateway, fmt.Sprintf(format, args...), mend})
	}
	versions := map[string]bool{}
	for _, g := range gateways {
		before := len(findings)
		versions[g.Version] = true
		if !g.Nginx.Running {
			add(fail, g.Gateway, "sluice status "+g.Gateway+" says why; sluice starts it unless it is attached", "nginx does not run")
		}
		if g.Failure != nil {
			add(fail, g.Gateway, "mend the object, or sluice revert; it is tried again by itself", "the last good configuration serves: %s", g.Failure.Message)
		}
		if !g.Registry.Connected {
			add(fail, g.Gateway, "what is known serves on; look at the registry", "the registry is away since %s: %s", g.Registry.Since.UTC().Format(time.RFC3339), g.Registry.Error)
		}
		if g.Stale {
			add(warn, g.Gateway, "look at the registry", "it serves what its disk held, since the registry has not answered since the start")
		}
		for _, a := range g.Alarms {
			add(fail, g.Gateway, "docs/guard.md", "%s", a.String())
		}
		for _, p := range g.Problems {
			add(warn, g.Gateway, "", "%s", p.String())
		}
		for _, c := range g.Certificates {
			switch left := c.NotAfter.Sub(now); {
			case left <= 0:
				add(fail, g.Gateway, "renew it: browsers refuse the site", "certificate %s has expired", c.Name)
			case left < certificateSoon:
				add(warn, g.Gateway, "renew it; files are read again by themselves", "certificate %s expires in %d days", c.Name, int(left/(24*time.Hour)))
			}
		}
		if len(findings) == before {
			add(fine, g.Gateway, "", "in step at seq %d, %s, %s", g.SeqLive, count(g.Nodes, "node"), count(len(g.Nginx.Generations), "generation"))
		}
	}
	if len(versions) > 1 {
		findings = append(findings, finding{warn, "versions", fmt.Sprintf("the gateways run %d versions of sluice", len(versions)),
			"they work side by side; end the upgrade when you can, since gateways of one version render the same bytes"})
	}
	return findings
}

// maxServices is how many services of Consul are asked about at once: docs/registry.md.
const maxServices = 149

func examineServices(ctx context.Context, client apiClient) []finding {
	resp, err := client.ListServicesWithResponse(ctx, &api.ListServicesParams{})
	if err := api.Check(resp, err); err != nil {
		return []finding{{fail, "services", err.Error(), "look at the registry"}}
	}
	if n := len(resp.JSON200.Items); n > maxServices {
		return []finding{{warn, "services", fmt.Sprintf("there are %d", n),
			"on Consul they are asked in turns beyond 149, so that a change can be 4 s later: an agent refuses more than 200 connections of one address (limits.http_max_conns_per_client)"}}
	}
	return []finding{{fine, "services", fmt.Sprint(len(resp.JSON200.Items)), ""}}
}

func writeFindings(w io.Writer, findings []finding) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, f := range findings {
		fmt.Fprintf(t, "%s\t%s\t%s\n", f.Level, plain(f.Check), plain(f.Message))
		if f.Mend != "" {
			fmt.Fprintf(t, "\t\t→ %s\n", plain(f.Mend))
		}
	}
	return t.Flush()
}
