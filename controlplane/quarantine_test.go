package controlplane

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sluice/registry"
	"sluice/templates"
)

// siteWithHost is a site whose host name tells a judge what to think of it.
func siteWithHost(host string) string {
	return fmt.Sprintf(`{"hosts": [%q], "listeners": [{"port": 8080}], "routes": [{"upstream": "io"}]}`, host)
}

// refuseHosts judges like an nginx that does not like sites with "bad" in their host's name, and names the first.
func refuseHosts(conf string) error {
	for _, name := range []string{"one", "two"} {
		if strings.Contains(conf, "bad-"+name) {
			return fmt.Errorf("nginx -t refused the configuration: [emerg] what is this in http/site-%s.conf:3", name)
		}
	}
	return nil
}

func hosts(cfg templates.Config) string {
	var list []string
	for _, s := range cfg.Sites {
		list = append(list, s.Hosts...)
	}
	return strings.Join(list, " ")
}

// wantProblem fails the test unless a problem of the object contains want.
func wantProblem(t *testing.T, list []registry.Problem, object, want string) {
	t.Helper()
	for _, p := range list {
		if p.Object == object && strings.Contains(p.Message, want) {
			return
		}
	}
	t.Errorf("no problem of %s says %q:\n%s", object, want, problems(list))
}

// An object that nginx refuses stays as it last was good, or is left out; a second one is found as well; the rest goes live.
func TestQuarantine(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "")
		defer r.stop()
		r.applier.judge = refuseHosts // nothing runs yet that could read it
		w := newWorld().nodes(2).put(registry.KindSite, "one", siteWithHost("good-one.example"))
		r.send(w.snapshot)
		time.Sleep(time.Minute)
		good := r.phase(InStep).RevisionLive

		w.put(registry.KindSite, "one", siteWithHost("bad-one.example"))
		w.put(registry.KindSite, "two", siteWithHost("bad-two.example"))
		w.nodes(3)
		r.send(w.snapshot)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		s := r.phase(InStep)
		if s.Nodes != 3 || s.RevisionLive == good || s.SeqLive != s.SeqWanted || s.Failure != nil {
			t.Errorf("the rest is not live: %+v", s)
		}
		wantProblem(t, s.Problems, "site/one", "it stays as it was at seq 3")
		wantProblem(t, s.Problems, "site/two", "it is left out")
		wantProblem(t, s.Problems, "site/two", "in http/site-two.conf:3")

		w.put(registry.KindSite, "two", siteWithHost("good-two.example"))
		r.send(w.snapshot)
		time.Sleep(time.Second)
		synctest.Wait()
		if s := r.phase(InStep); len(s.Problems) != 1 {
			t.Errorf("a mended object is still a problem:\n%s", problems(s.Problems))
		}
	})
}

// What was refused is tried again: it may have been the machine's fault.
func TestQuarantineEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "")
		defer r.stop()
		w := newWorld().nodes(2)
		r.send(w.snapshot)
		time.Sleep(time.Minute)
		r.applier.set(func(a *fakeApplier) {
			a.judge = func(conf string) error {
				if strings.Contains(conf, ":8081") {
					return errors.New("[emerg] bind() to 0.0.0.0:8081 failed (98: Address already in use)")
				}
				return nil
			}
		})
		w.put(registry.KindSite, "two", strings.Replace(siteWithHost("two.example"), "8080", "8081", 1)).nodes(3)
		r.send(w.snapshot)
		time.Sleep(time.Second)
		synctest.Wait()
		s := r.phase(InStep)
		if s.Nodes != 3 {
			t.Errorf("%d nodes are live, want 3", s.Nodes)
		}
		wantProblem(t, s.Problems, "site/two", "Address already in use")
		before := len(r.attempts())
		time.Sleep(time.Minute)
		synctest.Wait()
		if tries := len(r.attempts()) - before; tries < 3 || tries > 8 {
			t.Errorf("%d applies within a minute of a port that is taken", tries)
		}
		r.applier.set(func(a *fakeApplier) { a.judge = nil })
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if s := r.phase(InStep); len(s.Problems) != 0 {
			t.Errorf("after the port was given back: %s", problems(s.Problems))
		}
	})
}

// A template that is broken makes nginx name an object that is not at fault: the last good configuration stays whole.
func TestNoQuarantineOfWhatDidNotChange(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "")
		defer r.stop()
		w := newWorld().nodes(2)
		r.send(w.snapshot)
		time.Sleep(time.Minute)
		r.applier.set(func(a *fakeApplier) { a.err = errRefused }) // it names site-chat.conf
		r.send(w.nodes(3).snapshot)
		time.Sleep(time.Second)
		synctest.Wait()
		if s := r.phase(Failed); len(s.Problems) != 0 {
			t.Errorf("problems: %s", problems(s.Problems))
		}
	})
}

// What Render refuses is left out as well.
func TestQuarantineOfWhatCannotBeRendered(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "")
		defer r.stop()
		r.renderer.judge = func(cfg templates.Config) error {
			if strings.Contains(hosts(cfg), "bad") {
				return errors.Join(&templates.ObjectError{Object: "site/two", Err: errors.New("host: no safe form")})
			}
			return nil
		}
		r.send(newWorld().nodes(2).put(registry.KindSite, "two", siteWithHost("bad.example")).snapshot)
		time.Sleep(time.Second)
		synctest.Wait()
		s := r.phase(InStep)
		wantProblem(t, s.Problems, "site/two", "no safe form")
		if s.Nodes != 2 {
			t.Errorf("%d nodes are live, want 2", s.Nodes)
		}
	})
}

// entry is the history's entry of a change of one site; no text deletes it.
func entry(t *testing.T, seq registry.Seq, name, site string) registry.Object {
	t.Helper()
	changed := registry.ObjectChanged{Kind: registry.KindSite, Name: name}
	if site != "" {
		changed.After = []byte(site)
	}
	value, err := registry.MarshalJSON(registry.Change{Seq: seq, Changes: []registry.ObjectChanged{changed}})
	if err != nil {
		t.Fatal(err)
	}
	return registry.Object{Kind: registry.KindHistory, Name: registry.HistoryName(seq), Seq: seq, Value: value}
}

// A gateway that is new serves what nginx refuses as it last was good elsewhere: the newest version that nginx takes.
func TestQuarantineOnANewGateway(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		entries []registry.Object
		want    string
	}{
		"the one before":        {[]registry.Object{entry(t, 1, "two", siteWithHost("good-old.example")), entry(t, 2, "two", siteWithHost("good-two.example"))}, "good-two.example"},
		"the one before that":   {[]registry.Object{entry(t, 1, "two", siteWithHost("good-two.example")), entry(t, 2, "two", siteWithHost("bad-two-too.example"))}, "good-two.example"},
		"not beyond a deletion": {[]registry.Object{entry(t, 1, "two", siteWithHost("good-two.example")), entry(t, 2, "two", "")}, ""},
		"none":                  {nil, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, "", func(r *rig) {
					r.registry.lists = map[registry.Kind][]registry.Object{registry.KindHistory: tt.entries}
				})
				defer r.stop()
				r.applier.judge = refuseHosts // nothing runs yet that could read it
				w := newWorld().nodes(2)
				w.snapshot.Seq = 2
				r.send(w.put(registry.KindSite, "two", siteWithHost("bad-two.example")).snapshot)
				time.Sleep(2 * time.Minute)
				synctest.Wait()
				s := r.phase(InStep)
				var live string
				r.applier.set(func(a *fakeApplier) { live = a.conf })
				if strings.Contains(live, "good-two.example") != (tt.want != "") || strings.Contains(live, "bad-") {
					t.Errorf("live is %s", live)
				}
				if tt.want == "" {
					wantProblem(t, s.Problems, "site/two", "it is left out")
				} else {
					wantProblem(t, s.Problems, "site/two", "until then it stays as it was at seq")
				}
			})
		})
	}
}
