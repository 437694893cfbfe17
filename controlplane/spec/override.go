package spec

import (
	"fmt"
	"strings"
)

// Validate returns what is wrong with o.
func (o Override) Validate() []FieldError {
	c := newChecker()
	checkOwner(c, o.Owner)
	oneOf(c.in("state"), o.State, Active, Draining, Disabled)
	c.in("weight").number(o.Weight, 1, 1000)
	c.in("note").text(o.Note, 1000)
	return *c.errs
}

// endpointsService is the beginning of the service names of nodes that etcd's naming/endpoints writes, followed by the
// key prefix.
const endpointsService = "endpoints:"

// SplitNode splits the name of an override, "service/id". The id may have slashes, a service has none; the service of an
// upstream's endpoints, "endpoints:PREFIX", may, and then the id has none.
func SplitNode(name string) (service, id string, err error) {
	service, id, ok := strings.Cut(name, "/")
	_, endpoints := strings.CutPrefix(name, endpointsService)
	if i := strings.LastIndex(name, "/"); endpoints && ok {
		service, id = name[:i], name[i+1:]
	}
	if !ok {
		return "", "", fmt.Errorf("%q does not name a node: write it as service/id", name)
	}
	switch {
	case endpoints && !endpointsKey.MatchString(strings.TrimPrefix(service, endpointsService)), !endpoints && !ValidName(service):
		return "", "", fmt.Errorf("%q does not name a node as service/id: the service %q is not a name", name, service)
	case id == "" || len(id) > 253 || !printable(id):
		return "", "", fmt.Errorf("%q does not name a node as service/id: an id is 1 to 253 bytes of printable text", name)
	}
	return service, id, nil
}

// CheckNode returns what is wrong with s as the name of an override, or nil.
func CheckNode(s string) []FieldError {
	if _, _, err := SplitNode(s); err != nil {
		return []FieldError{{Message: err.Error()}}
	}
	return nil
}
