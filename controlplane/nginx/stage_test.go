package nginx

import (
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"

	"sluice/internal/testport"
	"sluice/templates"
)

// A disk that is full while a configuration is staged: nothing changes, and it goes on when there is room again.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("a small file system of its own needs root")
	}
	o, port := options(t), testport.Free(t)
	if err := syscall.Mount("none", o.Dir, "tmpfs", 0, "size=512k,mode=0711"); err != nil {
		t.Fatalf("mount a small file system: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(o.Dir, syscall.MNT_DETACH) })
	d := open(t, o)
	apply(t, d, bundle(site(port, "one", "")), Started)
	workers := acceptingPIDs(t, d)
	before := d.linked(current)

	filler := path(d, "filler")
	if err := os.WriteFile(filler, make([]byte, 1<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("fill the disk: %v", err)
	}
	two := bundle(site(port, "two", ""))
	refused(t, d, two, StageWrite, "no space left on device")
	if entries, err := os.ReadDir(path(d, "conf")); err != nil || len(entries) != 1 {
		t.Errorf("%d configurations, %v: what was half written should be gone", len(entries), err)
	}
	if d.linked(current) != before {
		t.Errorf("current was switched")
	}
	serves(t, port, "one")
	if now := acceptingPIDs(t, d); now[0] != workers[0] {
		t.Errorf("nginx was reloaded")
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	apply(t, d, two, Reloaded)
	serves(t, port, "two")
}

// Going back works without room for a new link.
func TestSwitchBackOnFullDisk(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("a small file system of its own needs root")
	}
	o := options(t)
	if err := syscall.Mount("none", o.Dir, "tmpfs", 0, "nr_inodes=40,mode=0711"); err != nil {
		t.Fatalf("mount a small file system: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(o.Dir, syscall.MNT_DETACH) })
	d := open(t, o)
	if err := d.link(current, "a"); err != nil {
		t.Fatal(err)
	}
	if err := d.poise("b"); err != nil {
		t.Fatal(err)
	}
	undo, err := d.swap()
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		err = os.Symlink("x", path(d, "logs", newID(0)))
	}
	if err := d.link(current, "c"); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("the disk is not full: %v", err)
	}
	if err := undo(); err != nil || d.linked(current) != "a" {
		t.Errorf("current leads to %s: %v", d.linked(current), err)
	}
}

func TestStageRefusesPathsThatLeave(t *testing.T) {
	t.Parallel()
	d := open(t, options(t))
	for _, name := range []string{"../x", "/etc/x", "a/../../x", ""} {
		if _, err := d.stage(bundleOf(templates.File{Path: name}), manifest{}); err == nil || !strings.Contains(err.Error(), "leaves") {
			t.Errorf("%q was staged: %v", name, err)
		}
	}
}

func TestControlFilesFail(t *testing.T) {
	t.Parallel()
	o := options(t)
	o.Control = func(templates.Control) ([]templates.File, error) { return nil, errors.New("template is broken") }
	refused(t, open(t, o), bundle(""), StageWrite, "template is broken")
}

// What did not change is not written again, and a key's mode is held.
func TestStageLinksWhatStays(t *testing.T) {
	t.Parallel()
	d, port := open(t, options(t)), testport.Free(t)
	apply(t, d, bundle(site(port, "one", "")), Started)
	first := d.confDir(d.live.ID)
	apply(t, d, bundle(site(port, "two", "")), Reloaded)
	second := d.confDir(d.live.ID)
	for file, want := range map[string]bool{"nginx.conf": true, "keys/a.key": true, "http/site-a.conf": false, "control/http.conf": false} {
		if same := sameFile(first+"/"+file, second+"/"+file); same != want {
			t.Errorf("%s is the same file: %v, want %v", file, same, want)
		}
	}
	edited := bundle(site(port, "two", ""))
	edited.Files[1].Mode = 0o644
	edited.Files[2].Data = append([]byte("# more\n"), edited.Files[2].Data...)
	s, err := d.stage(edited, manifest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"nginx.conf", "keys/a.key"} {
		if sameFile(second+"/"+file, s.dir+"/"+file) {
			t.Errorf("%s is the same file, and should not be", file)
		}
	}
}
