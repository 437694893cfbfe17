package keyspace

import (
	"encoding/json"
	"time"

	"sluice/registry"
)

// OldHistory returns how many of the first of these history entries, which are sorted by key, were written before a time: up to
// the first that was not, so that the history has no gap. What does not decode goes with what is after it.
func OldHistory(entries []Entry, before time.Time) int {
	old := 0
	for i, e := range entries {
		o, err := DecodeObject(registry.KindHistory, "", e.Value)
		var written struct {
			At time.Time `json:"at"`
		}
		if err != nil || json.Unmarshal(o.Value, &written) != nil {
			continue
		}
		if !written.At.Before(before) {
			break
		}
		old = i + 1
	}
	return old
}
