package controlplane

import (
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"

	"sluice/registry"
	"sluice/templates"
)

// Version is one version of an object.
type Version struct {
	registry.Ref
	Seq registry.Seq
}

// refusal is a version of an object that nginx, or Render, did not take. Others go live without it.
type refusal struct {
	message  string
	attempts int
	nextTry  time.Time // it may be the machine's fault, a port that is taken: so it is tried again
	trying   bool      // since nextTry
}

// quarantine notes what nginx refused, so that the rest can go live. It returns false when no object is at fault that is
// new since the last proof: then another configuration would not help, as with a template that is broken.
func (l *loop) quarantine(used Good, wanted templates.Config, err error) bool {
	found := false
	for _, ref := range culprits(wanted, err) {
		o, ok := used.Objects[ref]
		if good, was := l.good.Objects[ref]; !ok || was && good.Seq == o.Seq {
			continue
		}
		version := Version{ref, o.Seq}
		r := l.refused[version]
		if r == nil {
			r = &refusal{}
			l.refused[version] = r
		}
		r.attempts++
		delay := backoff(r.attempts)
		r.message, r.nextTry, r.trying = err.Error(), time.Now().Add(delay), false
		l.Log.Error("refused; the rest goes live without it", "object", ref.String(), "seq", o.Seq, "next", delay, "error", err)
		found = true
	}
	if found {
		l.change()
	}
	return found
}

// bindFailure is what nginx says when it can't listen: an address, an IPv6 one in brackets, and a port.
var bindFailure = regexp.MustCompile(`bind\(\) to (\S+:[0-9]+) failed`)

// culprits returns the objects that err is about: those that it names, and the sites that brought a listener which nginx
// can't have.
func culprits(wanted templates.Config, err error) []registry.Ref {
	var refs []registry.Ref
	for _, name := range templates.Culprits(err) {
		if kind, object, ok := strings.Cut(name, "/"); ok {
			refs = append(refs, registry.Ref{Kind: registry.Kind(kind), Name: object})
		}
	}
	for _, m := range bindFailure.FindAllStringSubmatch(err.Error(), -1) {
		for _, s := range wanted.Sites {
			if slices.ContainsFunc(s.Sockets, func(address string) bool { return sameSocket(address, m[1]) }) {
				refs = append(refs, registry.Ref{Kind: registry.KindSite, Name: s.Name})
			}
		}
	}
	slices.SortFunc(refs, compareRefs)
	return slices.Compact(refs)
}

// sameSocket tells whether the address of a Socket is the one that nginx writes.
func sameSocket(address, written string) bool {
	a, err := netip.ParseAddrPort(strings.Replace(address, "*:", "0.0.0.0:", 1))
	if err != nil {
		return false
	}
	w, err := netip.ParseAddrPort(written)
	return err == nil && a == w
}

// refusals returns why versions are not to be used now, for Compile.
func (l *loop) refusals() map[Version]string {
	now := make(map[Version]string, len(l.refused))
	for version, r := range l.refused {
		if !r.trying {
			now[version] = r.message
		}
	}
	return now
}

// retryRefused lets refused versions be tried again when their time has come, or all of them at once, and returns when the
// next one's comes; zero when none waits.
func (l *loop) retryRefused(now time.Time, all bool) time.Time {
	var next time.Time
	for _, r := range l.refused {
		switch {
		case r.trying:
		case all || !now.Before(r.nextTry):
			r.trying = true
			l.change()
		case next.IsZero() || r.nextTry.Before(next):
			next = r.nextTry
		}
	}
	return next
}

// acquit forgets refusals of what is live now, and of what is not wanted any more.
func (l *loop) acquit() {
	for version := range l.refused {
		if o, ok := l.good.Objects[version.Ref]; ok && o.Seq == version.Seq {
			delete(l.refused, version)
			continue
		}
		if !slices.ContainsFunc(l.snapshot.Objects, func(o registry.Object) bool { return o.Ref() == version.Ref && o.Seq == version.Seq }) {
			delete(l.refused, version)
		}
	}
}

// backoff returns how long what failed attempts times waits for its next try.
func backoff(attempts int) time.Duration {
	if shift := attempts - 1; shift < 6 {
		return retryMin << shift
	}
	return retryMax
}
