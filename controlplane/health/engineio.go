package health

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// engineIO makes the handshake of Engine.IO's protocol 4 (and takes the answer of protocol 3), as Socket.IO's clients do,
// and closes the session that it opened. A server that has no polling is asked over WebSocket.
type engineIO struct {
	http      *httpCheck
	webSocket bool // the server said that it has no polling
}

// The codes of Engine.IO's errors, and its packets.
const (
	unknownTransport = 0
	openPacket       = '0'
	closePacket      = "1"
)

func (p *engineIO) probe(ctx context.Context, deadline time.Time) outcome {
	talk := p.http.talk(ctx, deadline)
	defer talk.end()
	if p.webSocket {
		return p.overWebSocket(talk)
	}
	a, o := talk.ask(http.MethodGet, p.http.path+"?EIO=4&transport=polling", "")
	if o.failed {
		return o
	}
	if a.code != http.StatusOK {
		code, message := engineError(a)
		if code == unknownTransport && message != "" {
			p.webSocket = true
			return p.overWebSocket(talk)
		}
		return p.http.identify(talk, a, failure("the handshake is answered with %d%s", a.code, message))
	}
	sid, old, ok := session(a.body)
	if !ok {
		return p.http.identify(talk, a, failure("what answers is no Engine.IO server: its answer to a handshake has no session id"))
	}
	packet := closePacket
	if old {
		packet = fmt.Sprintf("%d:%s", len(packet), packet)
	}
	// That the session is not closed is no failure: it ends by itself, when its ping is not answered.
	talk.ask(http.MethodPost, p.http.path+"?EIO=4&transport=polling&sid="+url.QueryEscape(sid), packet)
	return p.judge(talk, a, sid)
}

// judge tells the outcome of a handshake that gave a session.
func (p *engineIO) judge(talk *talk, a answer, sid string) outcome {
	if !p.http.identity.SID {
		return p.http.identify(talk, a, outcome{})
	}
	switch {
	case strings.HasPrefix(sid, p.http.id+"."):
		return outcome{proven: true}
	case strings.Contains(sid, "."):
		o := failure("another node answers there: its session ids begin with another id")
		o.stranger = true
		return o
	default:
		return outcome{reason: "it answers, but its session ids do not begin with its id and a dot"}
	}
}

// session returns the session id of the answer to a handshake, and whether it is one of protocol 3, which puts the
// packet's length in front.
func session(body []byte) (sid string, old, ok bool) {
	if length, rest, found := bytes.Cut(body, []byte(":")); found && len(length) > 0 && len(bytes.Trim(length, "0123456789")) == 0 {
		body, old = rest, true
	}
	if len(body) == 0 || body[0] != openPacket {
		return "", old, false
	}
	var open struct {
		SID string `json:"sid"`
	}
	// Other packets may follow in the same answer.
	if err := json.NewDecoder(bytes.NewReader(body[1:])).Decode(&open); err != nil {
		return "", old, false
	}
	return open.SID, old, open.SID != ""
}

// engineError returns Engine.IO's own words for an error, if it has them, and -1 if it has not.
func engineError(a answer) (code int, message string) {
	e := struct {
		Code    *int   `json:"code"`
		Message string `json:"message"`
	}{}
	if err := json.Unmarshal(a.body, &e); err != nil || e.Code == nil {
		return -1, ""
	}
	return *e.Code, fmt.Sprintf(" (%.80q)", e.Message)
}

// overWebSocket opens a session over WebSocket: it ends with its connection.
func (p *engineIO) overWebSocket(talk *talk) outcome {
	a, o := talk.ask(http.MethodGet, p.http.path+"?EIO=4&transport=websocket", "",
		// The key is any sixteen bytes: the answer to it is not looked at, since no frame is sent.
		"Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: c2x1aWNlIGNoZWNrcyBpdA==")
	if o.failed {
		return o
	}
	if a.code != http.StatusSwitchingProtocols {
		p.webSocket = false // next time it is asked anew what the server has
		_, message := engineError(a)
		return p.http.identify(talk, a, failure("the handshake over WebSocket is answered with %d%s", a.code, message))
	}
	frame, err := readFrame(talk.reader)
	if err != nil {
		return failedTo("read the handshake over WebSocket", err)
	}
	talk.end()
	sid, _, ok := session(frame)
	if !ok {
		return failure("what answers is no Engine.IO server: its first message over WebSocket has no session id")
	}
	return p.judge(talk, a, sid)
}

// readFrame reads one frame of a server, which are not masked (RFC 6455, section 5.2).
func readFrame(r io.Reader) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:2]); err != nil {
		return nil, err
	}
	size := int(head[1])
	switch {
	case size == 126:
		if _, err := io.ReadFull(r, head[2:]); err != nil {
			return nil, err
		}
		size = int(binary.BigEndian.Uint16(head[2:]))
	case size > 126:
		return nil, fmt.Errorf("the first frame is larger than a handshake is")
	}
	payload := make([]byte, size)
	_, err := io.ReadFull(r, payload)
	return payload, err
}
