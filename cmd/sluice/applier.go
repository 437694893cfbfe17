package main

import (
	"context"
	"time"

	"sluice/controlplane"
	"sluice/controlplane/nginx"
	"sluice/templates"
)

// applier joins the control plane to nginx: neither knows the other's types.
type applier struct {
	driver *nginx.Driver
}

func (a applier) Apply(ctx context.Context, b templates.Bundle) (controlplane.Applied, error) {
	applied, err := a.driver.Apply(ctx, b)
	return controlplane.Applied{Revision: applied.Revision, How: controlplane.How(applied.How), Took: applied.Took}, err
}

func (a applier) Try(ctx context.Context, b templates.Bundle) error { return a.driver.Try(ctx, b) }

func (a applier) Due(leaves bool) (time.Time, string) { return a.driver.Due(leaves) }

func (a applier) Live(ctx context.Context) controlplane.Live {
	live := a.driver.Live(ctx)
	generations := make([]controlplane.Generation, len(live.Generations))
	for i, g := range live.Generations {
		workers := make([]controlplane.Worker, len(g.Workers))
		for j, w := range g.Workers {
			workers[j] = controlplane.Worker(w)
		}
		generations[i] = controlplane.Generation{Number: g.Number, Since: g.Since, Old: g.Old, Workers: workers}
	}
	servers := make(map[string]controlplane.Connected, len(live.Connections.Servers))
	for address, n := range live.Connections.Servers {
		servers[address] = controlplane.Connected(n)
	}
	return controlplane.Live{
		Running: live.Running, PID: live.PID, Revision: live.Revision, Since: live.Since,
		Binary: live.Binary, Version: live.Version, Generations: generations, Notes: live.Notes,
		Connections: controlplane.Connections{Servers: servers, NoTCP: live.Connections.NoTCP, NoUnix: live.Connections.NoUnix},
	}
}
