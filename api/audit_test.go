package api_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/api"
	"sluice/controlplane"
	"sluice/registry"
)

// auditLine is what the tests look at.
type auditLine struct {
	Msg, ID, Caller, Role, Remote, Operation, Path, Reason string
	Status, Seq, Omitted                                   int
	Objects                                                []string
}

func (in *instance) auditLines() []auditLine {
	in.t.Helper()
	var lines []auditLine
	for text := range strings.Lines(in.audit.String()) {
		var l auditLine
		if err := json.Unmarshal([]byte(text), &l); err != nil {
			in.t.Fatal(err)
		}
		lines = append(lines, l)
	}
	return lines
}

// Beats are written down when they differ from the one before, in any way.
func TestAuditOfBeats(t *testing.T) {
	t.Parallel()
	in := startWith(t, newRegistry(t), adminToken)
	other := bearer(in.token(`{"name": "other", "role": "operator"}`))
	const node = "/v1/services/io/nodes/n1"
	steps := []struct {
		method, body, token string
		lines               int
	}{
		{"PUT", `{"address": "10.1.2.3", "port": 6000}`, bearer(adminToken), 1},
		{"PUT", `{"address": "10.1.2.3", "port": 6000}`, bearer(adminToken), 0},
		{"PUT", `{"address": "10.1.2.3", "port": 6000, "weight": 9}`, bearer(adminToken), 1},
		{"PUT", `{"address": "10.1.2.3", "port": 6000, "weight": 9, "tags": ["a"]}`, bearer(adminToken), 1},
		{"PUT", `{"address": "10.1.2.3", "port": 6000}`, other, 1},
		{"PUT", `{"address": "10.1.2.3", "port": 6000}`, bearer(adminToken), 1},
		{"PUT", `{"address": "169.254.0.1", "port": 6000}`, bearer(adminToken), 1},
		{"PUT", `{"address": "169.254.0.1", "port": 6000}`, bearer(adminToken), 0}, // refused over and over
		{"PUT", `{"address": "10.1.2.3", "port": 6000}`, bearer(adminToken), 1},
		{"DELETE", "", bearer(adminToken), 1},
		{"PUT", `{"address": "10.1.2.3", "port": 6000}`, bearer(adminToken), 1},
	}
	for i, step := range steps {
		before := len(in.auditLines())
		in.do(step.method, node, step.body, step.token)
		if got := len(in.auditLines()) - before; got != step.lines {
			t.Errorf("step %d, %s %s: %d lines, want %d", i, step.method, step.body, got, step.lines)
		}
	}
}

// A token that stands where it does not belong is in no log, and neither is what a caller made long.
func TestAuditHasNoTokens(t *testing.T) {
	t.Parallel()
	in := startWith(t, newRegistry(t), adminToken)
	text := in.token(`{"name": "ops", "role": "operator"}`)
	in.do("DELETE", "/v1/tokens/"+text, "", bearer(adminToken)).want(400)
	in.do("PUT", "/v1/upstreams/io", `{}`, bearer(text), "X-Change-Reason: my token is "+text).want(201)
	in.do("PUT", "/v1/"+strings.Repeat("x", 5000), "", bearer(text)).want(404)
	history, err := in.registry.List(t.Context(), registry.KindHistory, "", 0)
	if err != nil {
		t.Fatal(err)
	}
	secret := text[len(text)-64:]
	for _, o := range history.Objects {
		if strings.Contains(string(o.Value), secret) {
			t.Errorf("the token is in the history: %s", o.Value)
		}
	}
	if strings.Contains(in.audit.String()+in.log.String(), secret) {
		t.Errorf("the token is in a log:\n%s\n%s", in.audit, in.log)
	}
	for _, l := range in.auditLines() {
		if len(l.Path) > 2100 {
			t.Errorf("a path of %d bytes", len(l.Path))
		}
	}
	if !strings.Contains(in.audit.String(), "/v1/tokens/sluice_ops_…") {
		t.Errorf("%s", in.audit)
	}
}

// What is denied over and over is counted, and does not fill the disk.
func TestAuditOfAFlood(t *testing.T) {
	t.Parallel()
	in := startWith(t, newRegistry(t), adminToken)
	for range 300 {
		in.do("GET", "/v1/sites", "").want(401) // nothing was shown, so nothing was guessed
	}
	lines := in.auditLines()
	if len(lines) < 50 || len(lines) > 200 {
		t.Errorf("%d lines", len(lines))
	}
	// A later line tells how many were not written.
	deadline := time.Now().Add(30 * time.Second)
	for omitted := 0; omitted == 0; {
		if time.Now().After(deadline) {
			t.Fatal("no line tells that others are missing")
		}
		in.do("GET", "/v1/sites", "").want(401)
		lines = in.auditLines()
		omitted = lines[len(lines)-1].Omitted
	}
	in.do("GET", "/v1/sites", "", bearer(adminToken)).want(200) // others at the address go on
}

// What is refused before anybody is asked who he is, is written down as well.
func TestAuditOfStrangers(t *testing.T) {
	t.Parallel()
	in := start(t)
	in.do("GET", "/v1/sites", "", "Host: evil.example").want(403)
	in.do("POST", "/v1/gateways/edge-1/retry", "", "Origin: https://evil.example").want(403)
	var got []string
	for _, l := range in.auditLines() {
		got = append(got, fmt.Sprintf("%s %s %d %s", l.Msg, l.Path, l.Status, l.Remote))
	}
	want := []string{"denied /v1/sites 403 127.0.0.1", "denied /v1/gateways/edge-1/retry 403 127.0.0.1"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}

// A write whose handler panics may have done something: it has its line.
func TestAuditOfAPanic(t *testing.T) {
	t.Parallel()
	in := startOptions(t, api.Options{Registry: newRegistry(t), Local: panicking{newLocal("x")}, Token: adminToken})
	in.do("GET", "/v1/self", "", bearer(adminToken)).want(500)
	in.do("POST", "/v1/gateways/x/retry", "", bearer(adminToken)).want(500)
	if l := in.auditLines(); len(l) != 1 || l[0].Msg != "failed" || l[0].Status != 500 || l[0].Operation != "retryGateway" {
		t.Errorf("%+v", l)
	}
}

// A stream ends when the token of its reader is revoked.
func TestStreamEndsWithItsToken(t *testing.T) {
	t.Parallel()
	in := startWith(t, newRegistry(t), adminToken)
	viewer := in.token(`{"name": "eyes", "role": "viewer"}`)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, in.url+"/v1/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+viewer)
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	resp, err := transport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	in.do("DELETE", "/v1/tokens/eyes", "", bearer(adminToken)).want(204)
	in.local.events.Add(controlplane.Event{Type: controlplane.EventAlarm, What: "raised"})
	rest, err := io.ReadAll(resp.Body) // ends, or the test's context does
	if err != nil || strings.Contains(string(rest), "data:") {
		t.Errorf("%v: %q", err, rest)
	}
}
