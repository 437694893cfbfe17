// Package spec has the types of the desired state: what operators write, its defaults and its validation. The structs
// are what is stored, as submitted; WithDefaults fills in what was left out, when the state is compiled.
package spec

import "time"

// Document is a set of objects of the desired state by name: what `sluice apply -f` reads and POST /v1/apply takes.
type Document struct {
	Upstreams    map[string]Upstream    `json:"upstreams,omitempty"`
	Sites        map[string]Site        `json:"sites,omitempty"`
	Certificates map[string]Certificate `json:"certificates,omitempty"`
	Overrides    map[string]Override    `json:"overrides,omitempty"` // by "service/id"
}

// Upstream is nginx's pool: the nodes of a service, and how to balance over them.
type Upstream struct {
	Owner     string            `json:"owner,omitempty"`     // whose it is, as the name of a repository; set by apply with an owner
	Service   string            `json:"service,omitempty"`   // the service whose nodes it has; default: the upstream's own name
	Endpoints string            `json:"endpoints,omitempty"` // instead of service: a key prefix that etcd's naming/endpoints writes
	Tags      []string          `json:"tags,omitempty"`      // only nodes that have all of them
	Meta      map[string]string `json:"meta,omitempty"`      // only nodes that have all of it
	Balance   *Balance          `json:"balance,omitempty"`
	Passive   *Passive          `json:"passive,omitempty"`
	Keepalive *Keepalive        `json:"keepalive,omitempty"`
	Guard     *Guard            `json:"guard,omitempty"`
	Check     *Check            `json:"check,omitempty"`
}

// Method is a balancing method, by nginx's name.
type Method string

// The balancing methods.
const (
	RoundRobin Method = "round_robin"
	LeastConn  Method = "least_conn"
	IPHash     Method = "ip_hash"
	Hash       Method = "hash"
	Random     Method = "random" // two nodes at random, the one with fewer connections
)

// Balance says how connections are spread.
type Balance struct {
	Method     Method `json:"method,omitempty"`     // default ip_hash: Socket.IO's polling needs a session to stay
	Key        string `json:"key,omitempty"`        // hash only: one of HashKeys, or "arg:NAME", "cookie:NAME", "header:NAME"
	Consistent *bool  `json:"consistent,omitempty"` // hash only: ketama, so that few clients move; default true
}

// Passive says when nginx itself takes a node that fails out of the rotation.
type Passive struct {
	MaxFails    *int      `json:"maxFails,omitempty"`    // failures within failTimeout; 0 never; default 3
	FailTimeout *Duration `json:"failTimeout,omitempty"` // default 5s
}

// Keepalive is the pool of idle connections that each nginx worker keeps to the nodes.
type Keepalive struct {
	Connections *int      `json:"connections,omitempty"` // per worker; 0 none; default 32
	Timeout     *Duration `json:"timeout,omitempty"`     // default 4s: below the 5 s after which Node.js closes
}

// Guard limits how many nodes an upstream loses that nobody took away on purpose.
type Guard struct {
	Enabled *bool     `json:"enabled,omitempty"` // default true
	Share   *int      `json:"share,omitempty"`   // percent of the most nodes within the window; 0 none; default 30
	Window  *Duration `json:"window,omitempty"`  // default 10m
}

// Site is a virtual server.
type Site struct {
	Owner           string         `json:"owner,omitempty"`       // whose it is, as the name of a repository; set by apply with an owner
	Groups          []string       `json:"groups,omitempty"`      // the gateways that serve it; default ["default"]
	Hosts           []string       `json:"hosts,omitempty"`       // names, "*.example.com", or "*" for any; required
	Listeners       []Listener     `json:"listeners,omitempty"`   // required
	Certificate     string         `json:"certificate,omitempty"` // required when a listener has tls
	TLS             *TLSPolicy     `json:"tls,omitempty"`
	RedirectToHTTPS bool           `json:"redirectToHTTPS,omitempty"` // on the listeners without tls
	ClientAddress   *ClientAddress `json:"clientAddress,omitempty"`
	Routes          []Route        `json:"routes,omitempty"`    // required
	AccessLog       *bool          `json:"accessLog,omitempty"` // default true
}

// Listener is an address that nginx listens on for a site. Sites that share one must agree on all of its options.
type Listener struct {
	Address       string `json:"address,omitempty"` // IPv4 or IPv6; default: all addresses of both
	Port          int    `json:"port"`
	TLS           bool   `json:"tls,omitempty"`
	HTTP2         bool   `json:"http2,omitempty"`         // with tls; WebSockets come over HTTP/1.1 beside it
	ProxyProtocol bool   `json:"proxyProtocol,omitempty"` // every connection starts with a PROXY protocol header
}

// TLSVersion is a version of TLS, as nginx numbers it.
type TLSVersion string

// TLSPolicy is how TLS is spoken with clients; the default is Mozilla's intermediate profile.
type TLSPolicy struct {
	MinVersion TLSVersion `json:"minVersion,omitempty"` // "1.2" (default) or "1.3"
}

// ClientAddress says whom to believe about the client's address.
type ClientAddress struct {
	TrustedProxies []string `json:"trustedProxies,omitempty"` // networks, as 10.0.0.0/8, or single addresses
	From           string   `json:"from,omitempty"`           // "X-Forwarded-For" (default), another header, or "proxy_protocol"
}

// RouteKind is what a route carries; it decides the defaults.
type RouteKind string

// The kinds of routes.
const (
	SocketIO  RouteKind = "socketio"  // Engine.IO polling and WebSocket, with sessions
	WebSocket RouteKind = "websocket" // plain WebSocket
	HTTP      RouteKind = "http"
)

// Route sends the requests of a path to an upstream.
type Route struct {
	Path           string    `json:"path,omitempty"`           // default "/socket.io/" for socketio, else "/"
	Match          Match     `json:"match,omitempty"`          // "prefix" (default) or "exact"
	Kind           RouteKind `json:"kind,omitempty"`           // default socketio
	Upstream       string    `json:"upstream,omitempty"`       // required
	ConnectTimeout *Duration `json:"connectTimeout,omitempty"` // default 2s
	ReadTimeout    *Duration `json:"readTimeout,omitempty"`    // default 75s; websocket 3600s; http 60s
	SendTimeout    *Duration `json:"sendTimeout,omitempty"`    // default 75s; websocket 3600s; http 60s
	Retries        *Retries  `json:"retries,omitempty"`
	MaxBodySize    *Size     `json:"maxBodySize,omitempty"` // default 1m, which covers Socket.IO's maxHttpBufferSize of 1e6
	BufferSize     *Size     `json:"bufferSize,omitempty"`  // nginx's proxy_buffer_size; default 4k
	Buffering      *bool     `json:"buffering,omitempty"`   // default true for http, else false
}

// Retries says how a request that a node did not answer is tried on another. Requests of an Engine.IO session are never
// tried on another node, which would not know the session.
type Retries struct {
	Tries   *int      `json:"tries,omitempty"`   // all in all; 1 means none; default 2
	Timeout *Duration `json:"timeout,omitempty"` // no further try after this; default 4s
}

// Certificate is a chain and its private key: in the registry, or as files on each gateway.
type Certificate struct {
	Owner     string `json:"owner,omitempty"`     // whose it is, as the name of a repository; set by apply with an owner
	Chain     string `json:"chain,omitempty"`     // PEM, the server's certificate first
	Key       string `json:"key,omitempty"`       // PEM; write-only: it is stored as a secret, and only KeySHA256 stays
	KeySHA256 string `json:"keySHA256,omitempty"` // names the stored key; set by the API
	ChainFile string `json:"chainFile,omitempty"` // instead: absolute paths on the gateway, watched for renewal
	KeyFile   string `json:"keyFile,omitempty"`
}

// State is what ops want of one node.
type State string

// The states of a node that ops can ask for.
const (
	Active   State = "active"
	Draining State = "draining" // no new connections; those that are open stay
	Disabled State = "disabled" // out of the rotation
)

// Override is what ops say about one node; it outlives the node's registration.
type Override struct {
	Owner  string `json:"owner,omitempty"`  // whose it is, as the name of a repository; set by apply with an owner
	State  State  `json:"state,omitempty"`  // default active
	Weight *int   `json:"weight,omitempty"` // 1 to 1000, instead of the node's own
	Note   string `json:"note,omitempty"`
}

// Approval is what ops say to the loss of an upstream's nodes that the guard holds: let them go.
type Approval struct {
	At    *time.Time `json:"at,omitempty"`    // what was held by then goes; default: when the API takes it
	Until *time.Time `json:"until,omitempty"` // until then nothing is held; default: only what was held at At goes
	Note  string     `json:"note,omitempty"`
}
