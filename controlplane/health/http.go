package health

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"sluice/controlplane/spec"
)

const (
	// maxBody is how much of an answer is read: a handshake or an id is far smaller.
	maxBody = 64 << 10
	// maxAnswers bounds what one check reads, headers included.
	maxAnswers = 512 << 10
	userAgent  = "sluice"
)

// httpCheck asks for a path and expects a code. It speaks HTTP/1.1 on a connection of its own for each check, as a client
// that comes through nginx finds the node, and does not follow redirects.
type httpCheck struct {
	network, address string
	id               string
	host             string
	path             string
	codes            []spec.Codes
	tls              *tls.Config
	identity         spec.Identity
}

func newHTTP(t Target, network, address string) *httpCheck {
	p := &httpCheck{network: network, address: address, id: t.Node.ID, host: t.Check.Host, path: t.Check.Path}
	switch {
	case p.host != "":
	case network == "unix":
		p.host = "localhost"
	default:
		p.host = address
	}
	for _, s := range t.Check.Codes {
		if codes, err := spec.ParseCodes(s); err == nil { // validated before
			p.codes = append(p.codes, codes)
		}
	}
	if t.Check.TLS != nil {
		p.tls = &tls.Config{
			MinVersion: tls.VersionTLS12, ServerName: t.Check.TLS.ServerName, NextProtos: []string{"http/1.1"},
			InsecureSkipVerify: !*t.Check.TLS.Verify, //nolint:gosec // the operator says so
		}
	}
	if t.Check.Identity != nil {
		p.identity = *t.Check.Identity
	}
	return p
}

func (p *httpCheck) probe(ctx context.Context, deadline time.Time) outcome {
	talk := p.talk(ctx, deadline)
	defer talk.end()
	a, o := talk.ask(http.MethodGet, p.path, "")
	if o.failed {
		return o
	}
	if !p.expected(a.code) {
		o = failure("it answers %d", a.code)
	}
	return p.identify(talk, a, o)
}

func (p *httpCheck) expected(code int) bool {
	for _, c := range p.codes {
		if c.First <= code && code <= c.Last {
			return true
		}
	}
	return false
}

// identify adds to o whether the node proved to be the one that registered, with its answer a or another that is asked
// for. A node that does not say who it is proves nothing, and that is no failure.
func (p *httpCheck) identify(talk *talk, a answer, o outcome) outcome {
	var said string
	switch {
	case p.identity.Header != "":
		said = a.header.Get(p.identity.Header)
	case p.identity.Path != "":
		if p.identity.Path != p.path || a.code != http.StatusOK {
			var lost outcome
			if a, lost = talk.ask(http.MethodGet, p.identity.Path, ""); lost.failed {
				return lost
			}
		}
		if a.code == http.StatusOK && len(a.body) < maxBody {
			said = strings.TrimSpace(string(a.body))
		}
	default:
		return o
	}
	switch {
	case said == p.id:
		o.proven = true
	case said == "" || len(said) > 253 || strings.ContainsAny(said, "\r\n"): // no id
		if !o.failed {
			o.reason = "it answers, but does not say who it is"
		}
	default:
		o = failure("another node answers there: %.80q", said)
		o.stranger = true
	}
	return o
}

// talk is what is asked within one check, on one connection as long as the node keeps it open.
type talk struct {
	*httpCheck
	ctx      context.Context
	deadline time.Time
	conn     net.Conn
	stop     func() bool
	left     io.LimitedReader
	reader   *bufio.Reader
}

type answer struct {
	code   int
	header http.Header
	body   []byte // of at most maxBody
}

func (p *httpCheck) talk(ctx context.Context, deadline time.Time) *talk {
	return &talk{httpCheck: p, ctx: ctx, deadline: deadline}
}

// open connects, unless the talk is connected.
func (t *talk) open() outcome {
	if t.conn != nil {
		return outcome{}
	}
	dialer := net.Dialer{Deadline: t.deadline, KeepAlive: -1}
	conn, err := dialer.DialContext(t.ctx, t.network, t.address)
	if err != nil {
		return failedTo("connect", err)
	}
	t.conn = conn
	err = conn.SetDeadline(t.deadline)
	t.stop = context.AfterFunc(t.ctx, func() { _ = conn.SetDeadline(past) })
	if err != nil {
		return failedTo("connect", err)
	}
	if t.tls != nil {
		secured := tls.Client(conn, t.tls)
		t.conn = secured
		if err := secured.HandshakeContext(t.ctx); err != nil {
			return failedTo("speak TLS", err)
		}
	}
	t.left = io.LimitedReader{R: t.conn, N: maxAnswers}
	t.reader = bufio.NewReader(&t.left)
	return outcome{}
}

// ask sends a request and reads the answer. What it returns failed when there is none.
func (t *talk) ask(method, path, body string, headers ...string) (answer, outcome) {
	if o := t.open(); o.failed {
		return answer{}, o
	}
	var request strings.Builder
	fmt.Fprintf(&request, "%s %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: %s\r\nAccept: */*\r\n", method, path, t.host, userAgent)
	for _, h := range headers {
		request.WriteString(h + "\r\n")
	}
	if body != "" {
		fmt.Fprintf(&request, "Content-Type: text/plain;charset=UTF-8\r\nContent-Length: %d\r\n", len(body))
	}
	request.WriteString("\r\n" + body)
	if _, err := io.WriteString(t.conn, request.String()); err != nil {
		return answer{}, failedTo("ask", err)
	}
	resp, err := t.response(method)
	if err != nil {
		return answer{}, failedTo("read the answer", err)
	}
	defer resp.Body.Close()
	a := answer{code: resp.StatusCode, header: resp.Header}
	if resp.StatusCode == http.StatusSwitchingProtocols {
		return a, outcome{}
	}
	a.body, err = io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err != nil {
		return answer{}, failedTo("read the answer", err)
	}
	if resp.Close || len(a.body) == maxBody {
		t.end()
	}
	return a, outcome{}
}

// response reads the head of the next answer that is not merely informational.
func (t *talk) response(method string) (*http.Response, error) {
	for {
		resp, err := http.ReadResponse(t.reader, &http.Request{Method: method})
		if err != nil || resp.StatusCode >= http.StatusOK || resp.StatusCode == http.StatusSwitchingProtocols {
			return resp, err
		}
		resp.Body.Close()
	}
}

// end closes the connection.
func (t *talk) end() {
	if t.conn != nil {
		t.stop()
		t.conn.Close()
		t.conn = nil
	}
}
