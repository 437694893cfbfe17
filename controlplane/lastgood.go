package controlplane

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/google/renameio/v2"

	"sluice/registry"
)

// LastGood is what was last proven live, as the disk holds it: enough to compile it again without the registry. It holds
// private keys, so its file is readable by its owner alone.
type LastGood struct {
	Version  int               `json:"version"` // of this file's format
	Gateway  string            `json:"gateway"`
	Revision string            `json:"revision"`
	Snapshot registry.Snapshot `json:"snapshot"`
	Objects  []registry.Object `json:"objects"` // the versions that were used
	Files    map[string][]byte `json:"files"`
}

const lastGoodVersion = 1

// good returns what Compile falls back to.
func (l LastGood) good() Good {
	g := Good{Objects: make(map[registry.Ref]registry.Object, len(l.Objects)), Files: l.Files}
	for _, o := range l.Objects {
		g.Objects[o.Ref()] = o
	}
	return g
}

// loadLastGood returns what path holds; ok is false when there is nothing that can be used.
func loadLastGood(path string) (l LastGood, ok bool, err error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return LastGood{}, false, nil
	}
	if err != nil {
		return LastGood{}, false, fmt.Errorf("read the last good state: %w", err)
	}
	if err := json.Unmarshal(data, &l); err != nil {
		return LastGood{}, false, fmt.Errorf("read the last good state of %s: %w", path, err)
	}
	if l.Version != lastGoodVersion {
		return LastGood{}, false, fmt.Errorf("read the last good state of %s: its format is %d, this version reads %d", path, l.Version, lastGoodVersion)
	}
	return l, true, nil
}

// save writes l to path as a whole or not at all.
func (l LastGood) save(path string) error {
	l.Version = lastGoodVersion
	data, err := json.Marshal(l)
	if err != nil {
		return fmt.Errorf("save the last good state: %w", err)
	}
	// The temporary file stands beside it: keys have no business in the system's directory for such files.
	if err := renameio.WriteFile(path, data, 0o600, renameio.WithTempDir(filepath.Dir(path))); err != nil {
		return fmt.Errorf("save the last good state: %w", err)
	}
	return nil
}
