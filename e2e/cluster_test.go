package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Cluster is a registry of three members, each on a host of its own.
type Cluster struct {
	URL     string // of all members, as sluice takes it
	Members []*Member

	tb     testing.TB
	leader func(ctx context.Context, m *Member) (string, error) // the address of whom m takes for the leader
	ready  func(ctx context.Context, m *Member) error           // m serves, as a member of the cluster
}

// Member is a server of a Cluster. Kill, or Stop, and Start can follow each other.
type Member struct {
	*Process

	Address string // host:port for clients
	cluster *Cluster
	host    *Host
	argv    []string
}

const members = 3

// startCluster starts the members that add describes, and waits until all of them serve.
func startCluster(tb testing.TB, scheme string, port int, argv func(dir string, i int, hosts []*Host) []string) *Cluster {
	tb.Helper()
	c := &Cluster{tb: tb}
	hosts := newLAN(tb, members)
	dir := tempDir(tb)
	var addresses []string
	for i, h := range hosts {
		m := &Member{Address: fmt.Sprintf("%s:%d", h.address, port), cluster: c, host: h}
		m.argv = append(h.Command(), argv(filepath.Join(dir, fmt.Sprint(i)), i, hosts)...)
		c.Members = append(c.Members, m)
		addresses = append(addresses, m.Address)
	}
	c.URL = scheme + "://" + strings.Join(addresses, ",")
	return c
}

// Start starts the member, for the first time or again with the data that it had.
func (m *Member) Start() {
	m.Process = startProcess(m.cluster.tb, "member "+m.Address, nil, m.argv...)
}

// Wait waits until all members serve.
func (c *Cluster) Wait() {
	c.tb.Helper()
	for _, m := range c.Members {
		eventually(c.tb, time.Minute, m.Address+" serves", func(ctx context.Context) error { return c.ready(ctx, m) })
	}
}

// Leader returns the leader, and the others.
func (c *Cluster) Leader() (leader *Member, followers []*Member) {
	c.tb.Helper()
	var address string
	eventually(c.tb, time.Minute, "there is a leader", func(ctx context.Context) (err error) {
		address, err = c.leader(ctx, c.Members[0])
		if err == nil && address == "" {
			err = errors.New("there is none")
		}
		return err
	})
	for _, m := range c.Members {
		if strings.HasPrefix(address, m.host.address+":") {
			leader = m
		} else {
			followers = append(followers, m)
		}
	}
	if leader == nil {
		c.tb.Fatalf("the leader %q is no member", address)
	}
	return leader, followers
}

// each does the same with all members.
func (c *Cluster) each(do func(*Member)) {
	for _, m := range c.Members {
		do(m)
	}
}

// part keeps m and the other members from reaching each other, or lets them again. Clients reach all of them.
func (m *Member) part(apart bool) {
	for _, other := range m.cluster.Members {
		if other != m {
			m.host.Part(m.cluster.tb, other.host, apart)
		}
	}
}

// startEtcdCluster starts three members of etcd.
func startEtcdCluster(tb testing.TB) *Cluster {
	tb.Helper()
	c := startCluster(tb, "etcd", 2379, func(dir string, i int, hosts []*Host) []string {
		var peers []string
		for j, h := range hosts {
			peers = append(peers, fmt.Sprintf("m%d=http://%s:2380", j, h.address))
		}
		client, peer := "http://"+hosts[i].address+":2379", "http://"+hosts[i].address+":2380"
		return []string{
			tool("etcd"), "--name", fmt.Sprintf("m%d", i), "--data-dir", dir, "--log-level", "warn",
			"--listen-client-urls", client, "--advertise-client-urls", client,
			"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
			"--initial-cluster", strings.Join(peers, ","),
		}
	})
	c.ready = func(ctx context.Context, m *Member) error { // a linearizable read
		_, err := request(ctx, http.MethodPost, "http://"+m.Address+"/v3/kv/range", `{"key": "AA=="}`)
		return err
	}
	c.leader = func(ctx context.Context, m *Member) (string, error) {
		var list struct {
			Members []struct {
				ID         string
				ClientURLs []string
			}
		}
		var status struct{ Leader string }
		for path, into := range map[string]any{"/v3/cluster/member/list": &list, "/v3/maintenance/status": &status} {
			text, err := request(ctx, http.MethodPost, "http://"+m.Address+path, "{}")
			if err == nil {
				err = json.Unmarshal(text, into)
			}
			if err != nil {
				return "", err
			}
		}
		for _, member := range list.Members {
			if member.ID == status.Leader && len(member.ClientURLs) > 0 {
				return strings.TrimPrefix(member.ClientURLs[0], "http://"), nil
			}
		}
		return "", nil
	}
	c.each((*Member).Start)
	c.Wait()
	return c
}

// startConsulCluster starts three Consul servers.
func startConsulCluster(tb testing.TB) *Cluster {
	tb.Helper()
	c := startCluster(tb, "consul", 8500, func(dir string, i int, hosts []*Host) []string {
		var join []string
		for _, h := range hosts {
			join = append(join, h.address)
		}
		config, err := json.Marshal(map[string]any{
			"server": true, "bootstrap_expect": members, "node_name": fmt.Sprintf("m%d", i), "data_dir": dir, "log_level": "warn",
			"bind_addr": hosts[i].address, "client_addr": hosts[i].address, "retry_join": join, "retry_interval": "500ms",
			"leave_on_terminate": false, "disable_update_check": true, "performance": map[string]int{"raft_multiplier": 1},
			"ports": map[string]int{"dns": -1, "grpc": -1, "grpc_tls": -1, "serf_wan": -1},
		})
		if err != nil {
			tb.Fatal(err)
		}
		if err := os.WriteFile(dir+".json", config, 0o600); err != nil {
			tb.Fatal(err)
		}
		return []string{tool("consul"), "agent", "-config-file", dir + ".json"}
	})
	c.ready = func(ctx context.Context, m *Member) error {
		text, err := request(ctx, http.MethodGet, "http://"+m.Address+"/v1/health/service/consul?passing&consistent", "")
		var servers []json.RawMessage
		if err == nil {
			err = json.Unmarshal(text, &servers)
		}
		if err == nil && len(servers) != members {
			err = fmt.Errorf("%d servers pass", len(servers))
		}
		if err != nil {
			return err
		}
		// One that was dead for long was taken out of the quorum, and is in it again only when it has been stable for a while.
		var raft struct{ Servers []struct{ Voter bool } }
		if text, err = request(ctx, http.MethodGet, "http://"+m.Address+"/v1/operator/raft/configuration", ""); err == nil {
			err = json.Unmarshal(text, &raft)
		}
		voters := 0
		for _, s := range raft.Servers {
			if s.Voter {
				voters++
			}
		}
		if err == nil && voters != members {
			err = fmt.Errorf("%d servers vote", voters)
		}
		return err
	}
	c.leader = func(ctx context.Context, m *Member) (string, error) {
		text, err := request(ctx, http.MethodGet, "http://"+m.Address+"/v1/status/leader", "")
		return strings.Trim(string(text), "\"\n"), err
	}
	c.each((*Member).Start)
	c.Wait()
	return c
}
