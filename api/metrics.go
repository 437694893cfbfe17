package api

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"

	"sluice/controlplane"
)

// metrics are what Prometheus asks for: counters of this process, and the state of its gateway at the moment of the question.
type metrics struct {
	registry  *prometheus.Registry
	requests  *prometheus.CounterVec
	durations *prometheus.HistogramVec
}

func newMetrics(s *Server) *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sluice_api_requests_total", Help: "Requests that the API answered, by operation and status code.",
		}, []string{"operation", "code"}),
		durations: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "sluice_api_request_duration_seconds", Help: "Time that the API took to answer, by operation.",
			Buckets: []float64{.001, .005, .02, .1, .5, 2, 10, 60},
		}, []string{"operation"}),
	}
	m.registry.MustRegister(m.requests, m.durations, gatewayCollector{s.local})
	return m
}

func (m *metrics) request(operation string, status int, took time.Duration) {
	m.requests.WithLabelValues(operation, strconv.Itoa(status)).Inc()
	if operation != "streamEvents" { // which lasts as long as its reader
		m.durations.WithLabelValues(operation).Observe(took.Seconds())
	}
}

// GetMetrics implements StrictServerInterface.
func (s *Server) GetMetrics(context.Context, GetMetricsRequestObject) (GetMetricsResponseObject, error) {
	families, err := s.metrics.registry.Gather()
	if err != nil {
		return nil, fmt.Errorf("gather metrics: %w", err)
	}
	var text bytes.Buffer
	for _, f := range families {
		if _, err := expfmt.MetricFamilyToText(&text, f); err != nil {
			return nil, fmt.Errorf("write metrics: %w", err)
		}
	}
	return metricsText(text.Bytes()), nil
}

// metricsText is the answer, with the content type that Prometheus expects.
type metricsText []byte

// VisitGetMetricsResponse implements GetMetricsResponseObject.
func (t metricsText) VisitGetMetricsResponse(w http.ResponseWriter) error {
	w.Header().Set("Content-Type", string(expfmt.NewFormat(expfmt.TypeTextPlain)))
	w.WriteHeader(http.StatusOK)
	_, err := w.Write(t)
	return err
}

// gatewayCollector tells the state of the gateway.
type gatewayCollector struct{ local Local }

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("sluice_"+name, help, labels, nil)
}

var (
	descInfo        = describe("build_info", "Always 1; the labels say what runs.", "version", "gateway", "group", "nginx")
	descConnected   = describe("registry_connected", "1 while the registry answers.")
	descStale       = describe("stale", "1 while what serves is from the disk, because the registry has not answered since the start.")
	descPhase       = describe("phase", "1 for what the gateway is doing.", "phase")
	descSeqWanted   = describe("seq_wanted", "Number of the newest change of the desired state that the gateway knows.")
	descSeqLive     = describe("seq_live", "Number of the change that is proven live.")
	descNodes       = describe("nodes", "Nodes of an upstream, by state.", "upstream", "state")
	descAlarms      = describe("alarms", "Alarms that somebody should look at now.")
	descProblems    = describe("problems", "Objects or nodes that somebody has to mend.")
	descApplies     = describe("applies_total", "Configurations that the gateway tried to make live, by how and by result.", "how", "result")
	descApplyTime   = describe("apply_duration_seconds", "Time from the start of an apply to its proof.")
	descRunning     = describe("nginx_running", "1 while nginx's master runs.")
	descGenerations = describe("nginx_generations", "Generations of nginx workers, the current one included.")
	descWorkers     = describe("nginx_workers", "nginx workers, by generation.", "generation")
	descMemory      = describe("nginx_worker_memory_bytes", "Resident memory of nginx workers, by generation.", "generation")
	descSockets     = describe("nginx_sockets", "Open connections of nginx workers, of both sides, by generation.", "generation")
	descConnections = describe("upstream_sockets", "Open connections of nginx to the nodes of an upstream, idle ones included.", "upstream")
	descCertificate = describe("certificate_expiry_timestamp_seconds", "When a certificate that is served expires, in seconds since the epoch.", "certificate")
)

// Describe implements prometheus.Collector.
func (g gatewayCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		descInfo, descConnected, descStale, descPhase, descSeqWanted, descSeqLive, descNodes, descAlarms, descProblems, descApplies,
		descApplyTime, descRunning, descGenerations, descWorkers, descMemory, descSockets, descConnections, descCertificate,
	} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (g gatewayCollector) Collect(ch chan<- prometheus.Metric) {
	st := g.local.Status(context.Background())
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	gauge(descInfo, 1, st.Version, st.Gateway, st.Group, st.Nginx.Version)
	gauge(descConnected, number(st.Registry.Connected))
	gauge(descStale, number(st.Stale))
	for _, p := range []controlplane.Phase{controlplane.Starting, controlplane.InStep, controlplane.Applying, controlplane.Waiting, controlplane.Failed} {
		gauge(descPhase, number(st.Phase == p), string(p))
	}
	gauge(descSeqWanted, float64(st.SeqWanted))
	gauge(descSeqLive, float64(st.SeqLive))
	gauge(descAlarms, float64(len(st.Alarms)))
	gauge(descProblems, float64(len(st.Problems)))
	gauge(descRunning, number(st.Nginx.Running))
	g.nodes(st, gauge)
	g.generations(st, gauge)
	for _, c := range st.Certificates {
		gauge(descCertificate, float64(c.NotAfter.Unix()), c.Name)
	}
	applies := g.local.Applies()
	for _, a := range applies.Counts {
		ch <- prometheus.MustNewConstMetric(descApplies, prometheus.CounterValue, float64(a.Count), string(a.How), a.Result)
	}
	ch <- prometheus.MustNewConstHistogram(descApplyTime, applies.Took.Count, applies.Took.Sum, applies.Took.Buckets)
}

// nodes tells how the nodes of each upstream stand; those that are not among the exceptions are up.
func (g gatewayCollector) nodes(st controlplane.Status, gauge func(*prometheus.Desc, float64, ...string)) {
	states := map[[2]string]int{}
	for _, n := range st.Exceptions {
		states[[2]string{n.Upstream, string(n.State)}]++
	}
	for key, n := range states {
		gauge(descNodes, float64(n), key[0], key[1])
	}
	for _, u := range st.Upstreams {
		gauge(descNodes, float64(u.Up), u.Name, string(controlplane.NodeUp))
		if st.Sockets != nil && st.Sockets.Uncounted == "" {
			gauge(descConnections, float64(u.Sockets), u.Name)
		}
	}
}

func (g gatewayCollector) generations(st controlplane.Status, gauge func(*prometheus.Desc, float64, ...string)) {
	gauge(descGenerations, float64(len(st.Nginx.Generations)))
	type sum struct{ workers, memory, sockets float64 }
	sums := map[string]*sum{"current": {}, "old": {}}
	for _, gen := range st.Nginx.Generations {
		s := sums["current"]
		if gen.Old {
			s = sums["old"]
		}
		for _, w := range gen.Workers {
			s.workers++
			s.memory += float64(w.Memory)
			s.sockets += float64(w.Sockets)
		}
	}
	for name, s := range sums {
		gauge(descWorkers, s.workers, name)
		gauge(descMemory, s.memory, name)
		gauge(descSockets, s.sockets, name)
	}
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
