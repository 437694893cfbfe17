package api

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"sluice/registry"
)

// precondition is what a request's If-Match or If-None-Match demands: an ETag, anyVersion, noVersion, or nothing.
type precondition string

const (
	anyVersion precondition = "*"
	noVersion  precondition = "none"
)

// etag returns the ETag of what the change seq made.
func etag(seq registry.Seq) string { return `"` + strconv.FormatUint(uint64(seq), 10) + `"` }

func parsePrecondition(ifMatch, ifNoneMatch string) (precondition, error) {
	switch {
	case ifMatch != "" && ifNoneMatch != "":
		return "", newProblem(http.StatusBadRequest, "If-Match and If-None-Match contradict each other: send one of them")
	case ifNoneMatch != "": // it can only be *
		return noVersion, nil
	case ifMatch == "" || ifMatch == "*":
		return precondition(ifMatch), nil
	}
	if _, err := parseETag(ifMatch); err != nil {
		return "", newProblem(http.StatusBadRequest, err.Error())
	}
	return precondition(ifMatch), nil
}

func parseETag(s string) (registry.Seq, error) {
	digits, ok := strings.CutPrefix(s, `"`)
	digits, quoted := strings.CutSuffix(digits, `"`)
	seq, err := strconv.ParseUint(digits, 10, 64)
	if !ok || !quoted || err != nil || seq == 0 {
		return 0, fmt.Errorf(`If-Match takes * or one ETag as it was received, as "17", not %s`, s)
	}
	return registry.Seq(seq), nil
}

func (p precondition) set() bool { return p != "" }

// seq returns the Seq that the object must have; have is the one that it has, zero when it does not exist.
func (p precondition) seq(ref registry.Ref, have registry.Seq) (*registry.Seq, error) {
	switch p {
	case noVersion:
		return new(registry.Seq(0)), nil
	case anyVersion:
		if have == 0 {
			return nil, problemf(http.StatusPreconditionFailed, "%s does not exist", ref)
		}
		return &have, nil
	default:
		want, err := parseETag(string(p))
		return &want, err
	}
}
