package controlplane

import (
	"errors"
	"io/fs"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sluice/registry"
	"sluice/templates"
)

func TestTry(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "")
		defer r.stop()
		change := func(kind registry.Kind, name, value string) map[registry.Ref]*registry.Object {
			return map[registry.Ref]*registry.Object{{Kind: kind, Name: name}: {Kind: kind, Name: name, Value: []byte(value)}}
		}
		try := func(c map[registry.Ref]*registry.Object) (Trial, error) {
			t.Helper()
			return r.Try(t.Context(), c)
		}
		if _, err := try(change(registry.KindSite, "two", siteWithHost("good.example"))); !errors.Is(err, errNoTrial) {
			t.Errorf("before there is anything: %v", err)
		}
		r.send(newWorld().nodes(2).put(registry.KindSite, "old", `{"hosts": []}`).snapshot) // which is bad already
		time.Sleep(time.Second)
		synctest.Wait()
		before := len(r.attempts())

		trial, err := try(change(registry.KindSite, "two", siteWithHost("good.example")))
		if err != nil || trial.How != Reload || len(trial.Refused) > 0 || len(trial.Files) == 0 || !strings.Contains(trial.Files[0].Diff, "good.example") {
			t.Errorf("a good site: %+v, %v", trial, err)
		}
		if trial, err = try(change(registry.KindUpstream, "unused", `{}`)); err != nil || trial.How != Nothing || len(trial.Files) > 0 {
			t.Errorf("what nobody uses: %+v, %v", trial, err)
		}
		if trial, err = try(change(registry.KindSite, "two", `{"hosts": [], "listeners": []}`)); err != nil || len(trial.Refused) == 0 || strings.Contains(trial.Refused[0].Message, "until then") {
			t.Errorf("a bad site: %+v, %v", trial, err)
		}
		if trial, err = try(map[registry.Ref]*registry.Object{{Kind: registry.KindSite, Name: "chat"}: nil}); err != nil || trial.How != Reload {
			t.Errorf("a deletion: %+v, %v", trial, err)
		}
		r.applier.set(func(a *fakeApplier) { a.judge = refuseHosts })
		if trial, err = try(change(registry.KindSite, "two", siteWithHost("bad-two.example"))); err != nil || len(trial.Refused) != 1 || !strings.Contains(trial.Refused[0].Message, "site-two.conf:3") {
			t.Errorf("what nginx refuses: %+v, %v", trial, err)
		}
		// It names somebody else, who was there before: that is no reason against this change.
		r.applier.set(func(a *fakeApplier) { a.judge, a.err = nil, errRefused })
		if trial, err = try(change(registry.KindSite, "two", siteWithHost("good.example"))); err == nil || len(trial.Refused) > 0 {
			t.Errorf("another object's fault: %+v, %v", trial, err)
		}
		if n := len(r.attempts()); n != before {
			t.Errorf("trials made %d applies", n-before)
		}
	})
}

// A private key is in no difference; the certificate beside it is.
func TestDiffFilesLeavesKeysOut(t *testing.T) {
	t.Parallel()
	file := func(path, text string, mode fs.FileMode) templates.File {
		return templates.File{Path: path, Data: []byte(text), Mode: mode}
	}
	before := templates.Bundle{Files: []templates.File{file("certs/a.key", "OLD", 0o600), file("certs/a.pem", "old", 0o644), file("certs/b.key", "GONE", 0o600), file("same", "x", 0o644)}}
	after := templates.Bundle{Files: []templates.File{file("certs/a.key", "NEW", 0o600), file("certs/a.pem", "new", 0o644), file("certs/c.key", "CAME", 0o600), file("same", "x", 0o644)}}
	got := diffFiles(before, after)
	if len(got) != 1 || got[0].Path != "certs/a.pem" || !strings.Contains(got[0].Diff, "-old") || !strings.Contains(got[0].Diff, "+new") {
		t.Errorf("%+v", got)
	}
}
