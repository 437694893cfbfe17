package nginx

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"sluice/templates"
)

// manifest describes a staged configuration, in its sluice.json: so that a Driver that starts anew knows what an id means.
type manifest struct {
	ID       string `json:"id"`
	Revision string `json:"revision"`
	// Settings is the hash of the control files without the reload's id: they may change while the Bundle stays.
	Settings string `json:"settings"`
}

const manifestName = "sluice.json"

// same says whether two manifests configure nginx in the same way.
func (m manifest) same(other manifest) bool {
	return m.ID != "" && other.ID != "" && m.Revision == other.Revision && m.Settings == other.Settings
}

// confDir returns the directory of a staged configuration.
func (d *Driver) confDir(id string) string { return filepath.Join(d.o.Dir, "conf", id) }

// readManifest returns what is staged as id; the zero manifest when nothing is.
func (d *Driver) readManifest(id string) manifest {
	var m manifest
	text, err := os.ReadFile(filepath.Join(d.confDir(id), manifestName))
	if err != nil || json.Unmarshal(text, &m) != nil || m.ID != id {
		return manifest{}
	}
	return m
}

// newID returns the name of the next reload: a number for people, and random bits, so that no nginx that runs can have
// it already, whatever became of the state directory.
func newID(number int) string {
	var bits [4]byte
	_, _ = rand.Read(bits[:]) // never fails
	return fmt.Sprintf("%06d-%s", number, hex.EncodeToString(bits[:]))
}

// idNumber returns the number in an id, zero when it is none.
func idNumber(id string) int {
	digits, _, _ := strings.Cut(id, "-")
	number, _ := strconv.Atoi(digits)
	return number
}

// lastStaged returns the highest number of a staged configuration.
func lastStaged(dir string) int {
	entries, _ := os.ReadDir(filepath.Join(dir, "conf"))
	last := 0
	for _, e := range entries {
		last = max(last, idNumber(e.Name()))
	}
	return last
}

// controlFiles renders the control files for a reload.
func (d *Driver) controlFiles(id, revision string) ([]templates.File, error) {
	files, err := d.o.Control(templates.Control{
		ReloadID:              id,
		Revision:              revision,
		Socket:                d.control.path,
		Modules:               d.o.Modules,
		User:                  d.o.User,
		PIDFile:               d.o.PIDFile,
		ErrorLog:              filepath.Join(d.o.Dir, "logs", "error.log"),
		WorkerProcesses:       d.o.WorkerProcesses,
		WorkerConnections:     d.o.WorkerConnections,
		WorkerRlimitNofile:    d.o.WorkerRlimitNofile,
		WorkerShutdownTimeout: d.o.WorkerShutdownTimeout,
		TempDir:               filepath.Join(d.o.Dir, "temp"),
	})
	if err != nil {
		return nil, fmt.Errorf("render the control files: %w", err)
	}
	return files, nil
}

// anyID stands for the reload's id where only the settings are of interest.
const anyID = "settings"

// wanted returns the manifest, still without an id, that b would have.
func (d *Driver) wanted(b templates.Bundle) (manifest, error) {
	files, err := d.controlFiles(anyID, b.Revision)
	if err != nil {
		return manifest{}, err
	}
	hash := sha256.New()
	for _, f := range files {
		fmt.Fprintf(hash, "%s %d %o\n%s", f.Path, len(f.Data), f.Mode, f.Data)
	}
	return manifest{ID: anyID, Revision: b.Revision, Settings: hex.EncodeToString(hash.Sum(nil))}, nil
}

// staged is a configuration on the disk that nginx does not know yet.
type staged struct {
	manifest
	dir   string
	paths []string // of files and directories, to be synced
}

// stage writes b with the control files of a new reload. Nothing that nginx reads changes.
func (d *Driver) stage(b templates.Bundle, want manifest) (staged, error) {
	d.mu.Lock()
	number := max(d.state.last(), lastStaged(d.o.Dir)) + 1
	d.mu.Unlock()
	want.ID = newID(number)
	s := staged{manifest: want, dir: d.confDir(want.ID)}
	if err := d.write(&s, b); err != nil {
		_ = os.RemoveAll(s.dir)
		return staged{}, err
	}
	return s, nil
}

func (d *Driver) write(s *staged, b templates.Bundle) error {
	files, err := d.controlFiles(s.ID, b.Revision)
	if err != nil {
		return err
	}
	text, err := json.Marshal(s.manifest)
	if err != nil {
		return fmt.Errorf("encode the manifest: %w", err)
	}
	files = append(files, templates.File{Path: manifestName, Data: text, Mode: 0o600})
	if err := os.Mkdir(s.dir, 0o700); err != nil {
		return fmt.Errorf("stage: %w", err)
	}
	s.paths = append(s.paths, filepath.Dir(s.dir), s.dir)
	made := map[string]bool{".": true}
	old := d.confDir(d.linked(good))
	for _, f := range append(slices.Clip(b.Files), files...) {
		if !filepath.IsLocal(f.Path) {
			return fmt.Errorf("stage: the file name %q leaves the configuration's directory", f.Path)
		}
		if err := s.mkdir(filepath.Dir(f.Path), made); err != nil {
			return err
		}
		data := f.Data
		if d.o.Mode == Include && strings.HasSuffix(f.Path, ".conf") {
			// What the operator's nginx includes is found by absolute paths, which lead through the link that is switched
			// only after the test: what is tested, and then read, is this very directory.
			data = bytes.ReplaceAll(data, []byte(d.Base()+"/"), []byte(s.dir+"/"))
		}
		path := filepath.Join(s.dir, f.Path)
		if linkSame(filepath.Join(old, f.Path), path, data, f.Mode) {
			continue
		}
		if err := writeFile(path, data, f.Mode); err != nil {
			return fmt.Errorf("stage: %w", err)
		}
		s.paths = append(s.paths, path)
	}
	return nil
}

func (s *staged) mkdir(dir string, made map[string]bool) error {
	if made[dir] {
		return nil
	}
	if err := s.mkdir(filepath.Dir(dir), made); err != nil {
		return err
	}
	made[dir] = true
	path := filepath.Join(s.dir, dir)
	if err := os.Mkdir(path, 0o700); err != nil {
		return fmt.Errorf("stage: %w", err)
	}
	s.paths = append(s.paths, path)
	return nil
}

// linkSame makes path a second name of a file of the last good configuration, if that holds the same: it is on the disk
// already, and a change of one upstream out of hundreds costs one file. It returns whether it did.
func linkSame(old, path string, data []byte, mode fs.FileMode) bool {
	info, err := os.Lstat(old)
	if err != nil || info.Mode() != mode || info.Size() != int64(len(data)) {
		return false
	}
	if now, err := os.ReadFile(old); err != nil || !bytes.Equal(now, data) {
		return false
	}
	return os.Link(old, path) == nil
}

// writeFile writes a new file; a name that is there twice is an error.
func writeFile(path string, data []byte, mode fs.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}

// sync brings the staged configuration to the disk, so that a power cut cannot leave a link that leads to empty files.
func (s staged) sync() error {
	for _, path := range slices.Backward(s.paths) {
		if err := syncPath(path); err != nil {
			return err
		}
	}
	return nil
}

func syncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		return fmt.Errorf("sync %s: %w", path, err)
	}
	return nil
}

// The links.
const (
	current = "current" // what the master reads
	good    = "good"    // last proven live
	back    = "back"    // made before current is switched, so that going back needs no room on the disk
)

// linked returns the id that a link leads to, empty when there is no such link.
func (d *Driver) linked(link string) string {
	target, err := os.Readlink(filepath.Join(d.o.Dir, link))
	if err != nil {
		return ""
	}
	return filepath.Base(target)
}

// linkAge returns the time since a link was made, a very long one when it was not.
func (d *Driver) linkAge(link string) time.Duration {
	info, err := os.Lstat(filepath.Join(d.o.Dir, link))
	if err != nil {
		return math.MaxInt64
	}
	return time.Since(info.ModTime())
}

// point makes a link that leads to id, under the name's .new.
func (d *Driver) point(link, id string) error {
	path := filepath.Join(d.o.Dir, link+".new")
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("link %s to %s: %w", link, id, err)
	}
	if err := os.Symlink(filepath.Join("conf", id), path); err != nil {
		return fmt.Errorf("link %s to %s: %w", link, id, err)
	}
	return nil
}

// turn renames a link over another: what was pointed at is led to from one moment to the next.
func (d *Driver) turn(from, to string) error {
	if err := os.Rename(filepath.Join(d.o.Dir, from), filepath.Join(d.o.Dir, to)); err != nil {
		return fmt.Errorf("switch the link %s: %w", to, err)
	}
	return nil
}

// link lets a link lead to id.
func (d *Driver) link(link, id string) error {
	if err := d.point(link, id); err != nil {
		return err
	}
	return d.turn(link+".new", link)
}

// poise makes all that a switch of current to id needs, and going back: then both are mere renames, which need no room.
func (d *Driver) poise(id string) error {
	if before := d.linked(current); before != "" {
		if err := d.link(back, before); err != nil {
			return err
		}
	}
	return d.point(current, id)
}

// swap lets current lead to what was poised, and returns what takes that back.
func (d *Driver) swap() (undo func() error, err error) {
	first := d.linked(current) == ""
	if err := d.turn(current+".new", current); err != nil {
		return nil, err
	}
	if first {
		return func() error { return os.Remove(filepath.Join(d.o.Dir, current)) }, nil
	}
	return func() error { return d.turn(back, current) }, nil
}

// keep is how many staged configurations stay for people to look at, besides current and good.
const keep = 3

// prune removes what was staged and is of no use any more: neither current nor good, nor one of the newest few.
func (d *Driver) prune() error {
	entries, err := os.ReadDir(filepath.Join(d.o.Dir, "conf"))
	if err != nil {
		return fmt.Errorf("prune: %w", err)
	}
	var ids []string
	used := []string{d.linked(current), d.linked(good), d.live.ID}
	for _, e := range entries {
		if !slices.Contains(used, e.Name()) {
			ids = append(ids, e.Name())
		}
	}
	slices.SortFunc(ids, func(a, b string) int {
		return cmp.Or(cmp.Compare(idNumber(b), idNumber(a)), cmp.Compare(b, a))
	})
	for _, id := range ids[min(keep, len(ids)):] {
		if err := os.RemoveAll(d.confDir(id)); err != nil {
			return fmt.Errorf("prune: %w", err)
		}
	}
	return nil
}
