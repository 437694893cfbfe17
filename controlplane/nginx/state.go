package nginx

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// state is what is remembered of the reloads, in run/state.json. Without it only the numbers of the generations are lost.
type state struct {
	Boot    string   `json:"boot"`    // the kernel's boot id: process start times count from a boot
	Reloads []reload `json:"reloads"` // that have workers, oldest first
	Orphans []orphan `json:"orphans,omitempty"`
}

// reload is the start of a generation.
type reload struct {
	Number int    `json:"number"`
	Start  uint64 `json:"start"` // ticks after boot: no worker of this generation is older; 0 only keeps the number
}

// orphan is a worker whose master died; it is nobody's child that we could find.
type orphan struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"`
}

func statePath(dir string) string { return filepath.Join(dir, "run", "state.json") }

func loadState(dir string) (state, error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return state{}, fmt.Errorf("read the boot id: %w", err)
	}
	now := state{Boot: strings.TrimSpace(string(boot)), Reloads: []reload{{Number: lastStaged(dir)}}}
	text, err := os.ReadFile(statePath(dir))
	if errors.Is(err, os.ErrNotExist) {
		return now, nil
	}
	if err != nil {
		return state{}, fmt.Errorf("read what is known of the reloads: %w", err)
	}
	var then state
	if err := json.Unmarshal(text, &then); err != nil {
		return now, nil //nolint:nilerr // a power cut may leave it empty; only the numbers are lost
	}
	if then.Boot != now.Boot { // all of these processes are gone; only the count goes on
		now.Reloads[0].Number = max(now.Reloads[0].Number, then.last())
		return now, nil
	}
	return then, nil
}

func (s state) save(dir string) error {
	text, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("encode what is known of the reloads: %w", err)
	}
	path := statePath(dir)
	if err := os.WriteFile(path+".new", text, 0o600); err != nil {
		return fmt.Errorf("remember the reload: %w", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("remember the reload: %w", err)
	}
	return nil
}

// last returns the newest number, zero when there was no reload yet.
func (s state) last() int {
	if len(s.Reloads) == 0 {
		return 0
	}
	return s.Reloads[len(s.Reloads)-1].Number
}
