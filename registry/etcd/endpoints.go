package etcd

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"sluice/registry"
	"sluice/registry/keyspace"
)

// endpointSet are the nodes that register themselves with etcd's naming/endpoints package, below a key prefix of their own.
type endpointSet struct {
	service string // registry.EndpointsService(target)
	prefix  string // <target>/
}

func endpointsOf(target string) (endpointSet, error) {
	target = strings.TrimSuffix(target, "/")
	if target == "" {
		return endpointSet{}, errors.New("the key prefix of the endpoints is empty: name one, as services/chat")
	}
	return endpointSet{service: registry.EndpointsService(target), prefix: target + "/"}, nil
}

// endpoint is the value that naming/endpoints writes.
type endpoint struct {
	Op       *int `json:"Op"` // 0: it is there. Written always, so what has none is something else
	Addr     string
	Metadata json.RawMessage
}

// sortKey is as that of sluice's own nodes. The service has slashes of its own.
func (e endpointSet) sortKey(key string) string {
	return e.service + "\x00" + strings.TrimPrefix(key, e.prefix)
}

// decode makes a node of an endpoint. Its id is the rest of the key; its incarnation is the revision that created the
// key, as the successor under the same key has another.
func (e endpointSet) decode(kv keyspace.Entry) (registry.Node, error) {
	var v endpoint
	if err := json.Unmarshal(kv.Value, &v); err != nil {
		return registry.Node{}, fmt.Errorf("the value is not what etcd's naming/endpoints writes: %w", err)
	}
	if v.Op == nil || *v.Op != 0 {
		return registry.Node{}, errors.New(`the value is not what etcd's naming/endpoints writes: "Op" is not 0`)
	}
	n := registry.Node{
		Service:     e.service,
		ID:          strings.TrimPrefix(kv.Key, e.prefix),
		Meta:        metaOf(v.Metadata),
		Incarnation: strconv.FormatUint(kv.Created, 16),
	}
	if strings.HasPrefix(v.Addr, "unix:") {
		n.Address = "unix:" + strings.TrimPrefix(strings.TrimPrefix(v.Addr, "unix:"), "//")
	} else {
		host, port, err := net.SplitHostPort(v.Addr)
		if err != nil {
			return registry.Node{}, fmt.Errorf("%q is not an address with a port: %w", v.Addr, err)
		}
		if _, err := netip.ParseAddr(host); err != nil {
			return registry.Node{}, fmt.Errorf("%q is a host name: names are not resolved, register an IP address", v.Addr)
		}
		n.Address = host
		if n.Port, err = strconv.Atoi(port); err != nil {
			return registry.Node{}, fmt.Errorf("%q has no port number", v.Addr)
		}
	}
	if err := n.Validate(); err != nil {
		return registry.Node{}, fmt.Errorf("it was left out: %w", err)
	}
	return n, nil
}

// metaOf keeps the plain values of Metadata, which may be anything; what is not an object or plain is of no use here.
func metaOf(raw json.RawMessage) map[string]string {
	var fields map[string]any
	if json.Unmarshal(raw, &fields) != nil || len(fields) == 0 {
		return nil
	}
	meta := make(map[string]string, len(fields))
	for k, v := range fields {
		switch v := v.(type) {
		case string:
			meta[k] = v
		case bool:
			meta[k] = strconv.FormatBool(v)
		case float64:
			meta[k] = strconv.FormatFloat(v, 'g', -1, 64)
		}
	}
	return meta
}
