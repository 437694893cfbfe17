package nginx

import (
	"context"
	"os"

	"sluice/templates"
)

// Try tests b as Apply would, and changes nothing. Its error is a *RefusedError when nginx does not like b.
func (d *Driver) Try(ctx context.Context, b templates.Bundle) error {
	if err := d.acquire(ctx); err != nil {
		return err
	}
	defer d.release()
	want, err := d.wanted(b)
	if err != nil {
		return err
	}
	s, err := d.stage(b, want)
	if err != nil {
		return err
	}
	defer os.RemoveAll(s.dir) // what stays of it is pruned with the others
	return d.test(ctx, s)
}
