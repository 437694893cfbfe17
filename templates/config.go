package templates

import "time"

// Config is one gateway's nginx configuration, with every decision made: the templates only write it down. All lists are
// in the order in which they are rendered. The zero value of a field leaves the directive out unless it says otherwise.
type Config struct {
	Capabilities Capabilities
	// HTTPOnly leaves nginx.conf out: the operator's own nginx.conf includes http.conf from its http block.
	HTTPOnly bool
	// Dir is the absolute path under which nginx will find the files, with HTTPOnly only: relative paths are relative to
	// the operator's nginx.conf there. Otherwise they are to ours, and all gateways render the same bytes.
	Dir string

	Upstreams    []Upstream    // by Name
	Certificates []Certificate // by Name
	Sockets      []Socket      // by Address
	Sites        []Site        // by Name
}

// Capabilities is what the nginx binary that runs can do, asked of the binary itself.
type Capabilities struct {
	Version             string `json:"version,omitempty"` // "1.22.1", for people; decisions are made on the fields below
	OpenResty           bool   `json:"openResty,omitempty"`
	HTTP2Directive      bool   `json:"http2Directive,omitempty"`      // `http2 on` (1.25.1) rather than `listen … http2`
	KeepaliveMinTimeout bool   `json:"keepaliveMinTimeout,omitempty"` // keepalive_min_timeout (1.27.4)
	RejectHandshake     bool   `json:"rejectHandshake,omitempty"`     // ssl_reject_handshake (1.19.4)
	// The modules are built in.
	Realip bool `json:"realip,omitempty"`
	SSL    bool `json:"ssl,omitempty"`
	HTTP2  bool `json:"http2,omitempty"`
	IPv6   bool `json:"ipv6,omitempty"` // this machine can listen on IPv6
	// KeepaliveDefault says that upstream connections are kept alive unless "keepalive 0" is given (1.29.7).
	KeepaliveDefault bool `json:"keepaliveDefault,omitempty"`
	// These modules were left out of the build, and with them the directives that name their temporary files.
	WithoutFastCGI bool `json:"withoutFastCGI,omitempty"`
	WithoutUWSGI   bool `json:"withoutUWSGI,omitempty"`
	WithoutSCGI    bool `json:"withoutSCGI,omitempty"`
}

// Upstream is one upstream block, in a file of its own.
type Upstream struct {
	Name    string // the object's name; the block is named sluice_<Name>
	Method  string // "" (round robin), "least_conn", "ip_hash", "hash" or "random"
	HashKey string // hash only: a nginx variable, as "$remote_addr"
	Ketama  bool   // hash only: consistent

	Zone             int64 // bytes of shared memory
	Servers          []Server
	Keepalive        int // idle connections per worker
	KeepaliveTimeout time.Duration
}

// Server is one server line.
type Server struct {
	Node        string // the node's Key; empty for the place-holder of a free slot
	Address     string // "10.0.0.1:6001", "[fd00::1]:80" or "unix:/run/n1.sock"
	Weight      int    // at least 1
	MaxConns    int
	MaxFails    int // always written: 0 switches the passive check off
	FailTimeout time.Duration
	Down        bool
}

// Certificate is a chain and a key that are written beside the configuration, the key readable by its owner alone.
type Certificate struct {
	Name  string
	Chain []byte // PEM
	Key   []byte // PEM
}

// Socket is a listening socket and its default server, which refuses the names that no site has. Options of a socket
// belong to all sites on it.
type Socket struct {
	Address       string // "*:8080", "[::]:8080", "127.0.0.1:8443"
	TLS           bool
	HTTP2         bool
	ProxyProtocol bool
	// CatchAll says that a site has the name "*" on this socket: it is the default server, and none is added.
	CatchAll bool
}

// Site is one server block, in a file of its own; a second one follows where the sockets without TLS redirect.
type Site struct {
	Name        string
	Hosts       []string // as server_name takes them; "*" is not among them (CatchAll)
	CatchAll    bool
	Sockets     []string // Addresses of Sockets
	Certificate string   // Name of a Certificate; empty without TLS
	// TLS13Only refuses older TLS: before 1.29 in the handshake only when all sites on the socket do, else the request.
	TLS13Only bool
	// RedirectPort, when set, is the https port to which the sockets without TLS redirect.
	RedirectPort int
	RealIP       *RealIP
	AccessLog    string // path, absolute with HTTPOnly, else below nginx's prefix; empty for none
	Routes       []Route
}

// RealIP says whom to believe about the client's address.
type RealIP struct {
	Trusted []string // networks
	Header  string   // "X-Forwarded-For", the name of another header, or "proxy_protocol"
}

// Route is one location.
type Route struct {
	Path  string
	Exact bool
	// Upstream is the Name of an Upstream that has servers; empty answers 503 with Retry-After.
	Upstream string
	// Sessions says that requests with a sid belong to a session on one node and must not be tried on another.
	Sessions bool
	// Upgrade passes WebSocket upgrades on.
	Upgrade bool

	ConnectTimeout   time.Duration
	ReadTimeout      time.Duration
	SendTimeout      time.Duration
	Tries            int // 1: none but the first
	TriesTimeout     time.Duration
	MaxBodySize      int64 // bytes; 0 is no limit, as nginx has it
	BufferSize       int64 // bytes
	Buffering        bool
	RequestBuffering bool
	// AppendForwardedFor continues the X-Forwarded headers of the site's trusted proxies; else they are set anew, as they
	// must be at the edge. It needs a RealIP from a header.
	AppendForwardedFor bool
}
