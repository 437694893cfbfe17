package keyspace

import (
	"encoding/json"

	"sluice/registry"
)

// ChangeRollout returns the value that change makes of the value of a rollout; "" when it leaves it alone.
func ChangeRollout(raw []byte, change func(*registry.Rollout) error) (string, error) {
	o, err := DecodeObject(registry.KindRollout, "", raw)
	if err != nil {
		return "", err
	}
	var next json.RawMessage
	if next, err = registry.ChangeRollout(o.Value, change); err != nil || next == nil {
		return "", err
	}
	o.Value = next
	return EncodeObject(o)
}
