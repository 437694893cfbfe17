//go:build bench

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// template is consul-template with an nginx of its own: what sluice is measured beside.
type template struct {
	*Process
	nginx *BareNginx
}

// startTemplate starts consul-template with further flags, which tests and reloads nginx at each change, as its users do. http is the http
// block of nginx's configuration, as a template.
func startTemplate(tb testing.TB, consul *Consul, http func(port int) string, args ...string) *template {
	tb.Helper()
	nginx := startBareNginx(tb, func(port int) string { return fmt.Sprintf("\tserver { listen %d; return 503; }", port) })
	conf := nginx.Conf
	file := filepath.Join(filepath.Dir(conf), "nginx.ctmpl")
	nginx.Conf = file
	nginx.Write(http(nginx.Port))
	nginx.Conf = conf
	reload := fmt.Sprintf("/usr/sbin/nginx -t -q -p %s -e stderr -c %s && kill -HUP %d", filepath.Dir(conf), conf, nginx.PID())
	argv := []string{tool("consul-template"), "-consul-addr", consul.URL[len("consul://"):], "-template", file + ":" + conf + ":" + reload}
	p := startProcess(tb, "consul-template", nil, append(argv, args...)...)
	tb.Cleanup(func() { p.Signal(os.Interrupt) })
	return &template{Process: p, nginx: nginx}
}

// benchBeside measures from a registration to the first answer of the new node, after a calm: sluice beside
// consul-template, in turns, so that all meet the same moods of the machine.
func benchBeside(t *testing.T, r *report) {
	first, second := backend(t, "first"), backend(t, "second")
	consul := startConsul(t, nil)
	register := func(service, id string, port int) {
		consul.Put("/v1/agent/service/register", fmt.Sprintf(`{"Name": %q, "ID": "%s-%s", "Address": "127.0.0.1", "Port": %d}`, service, service, id, port))
	}
	leave := func(service, id string) { consul.Put("/v1/agent/service/deregister/"+service+"-"+id, "") }

	register("theirs", "first", first)
	theirs := startTemplate(t, consul, func(port int) string {
		return strings.Replace(proxyTo("X")(port), "server X;", `{{range service "theirs"}}server {{.Address}}:{{.Port}}; {{end}}`, 1)
	})
	register(service, "first", first)
	workers := []string{"--worker-processes", "2", "--worker-connections", "4096"} // as the bare nginx has
	onConsul := startGateway(t, GatewayOptions{Registry: consul.URL, Args: workers})
	onEtcd := startGateway(t, GatewayOptions{Args: workers})
	onEtcd.putNode("first", first, true)
	for _, g := range []*Gateway{onConsul, onEtcd} {
		g.Apply(document(g.Port, "round_robin"))
		g.WaitNodes(20*time.Second, 1)
	}
	sides := []struct {
		name       string
		addr       string
		come, gone func()
		took       []time.Duration
	}{
		{name: "consul-template on Consul", addr: theirs.nginx.Addr(), come: func() { register("theirs", "second", second) }, gone: func() { leave("theirs", "second") }},
		{name: "sluice on Consul", addr: onConsul.Addr(), come: func() { register(service, "second", second) }, gone: func() { leave(service, "second") }},
		{name: "sluice on etcd", addr: onEtcd.Addr(), come: func() { onEtcd.putNode("second", second, true) }, gone: func() { onEtcd.putNode("second", second, false) }},
	}
	for range rounds {
		for i := range sides {
			side := &sides[i]
			pause(t, 2500*time.Millisecond)
			started := time.Now()
			side.come()
			firstAnswer(t, side.addr, "second")
			side.took = append(side.took, time.Since(started))
			pause(t, time.Second)
			side.gone()
		}
	}
	base := median(sides[0].took)
	for i, side := range sides {
		beside, aim := ratio(median(side.took), base)+" of consul-template", "1.0"
		if i == 0 {
			beside, aim = strconv.Itoa(rounds)+" rounds in turns", ""
		}
		r.add("registration to first answer, "+side.name, ms(median(side.took)), beside, aim)
	}
}
