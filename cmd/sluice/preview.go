package main

import (
	"fmt"
	"io"
	"strings"

	"sluice/api"
	"sluice/controlplane"
)

// writePreview tells what a change would do at each gateway.
func writePreview(w io.Writer, p api.Preview) error {
	if len(p.Files) > 0 {
		fmt.Fprintf(w, "%s would differ here; sluice diff --files shows them\n", count(len(p.Files), "file"))
	}
	if len(p.Gateways) == 0 {
		return nil
	}
	var rows []row
	for _, f := range p.Gateways {
		rows = append(rows, row{cells: forecastCells(f)})
	}
	return writeTable(w, []string{"GATEWAY", "GROUP", "HOW", "TESTED", "NODES", "SOCKETS ON LEAVING NODES", "IN AN OLD GENERATION", "DOUBT"}, rows)
}

func forecastCells(f controlplane.Forecast) []string {
	how, tested := string(f.How), "no"
	if how == "" {
		how = "unknown"
	}
	if f.Tested {
		tested = "yes"
	}
	var nodes []string
	if f.Join > 0 {
		nodes = append(nodes, fmt.Sprintf("+%d", f.Join))
	}
	if f.Leave > 0 {
		nodes = append(nodes, fmt.Sprintf("-%d", f.Leave))
	}
	leaving, retiring := "-", "-"
	if t := f.Sockets; t != nil {
		more := ""
		if t.AtLeast {
			more = "+"
		}
		leaving, retiring = fmt.Sprint(t.Leaving)+more, fmt.Sprint(t.Retiring)+more
	}
	return []string{f.Gateway, f.Group, how, tested, orDash(strings.Join(nodes, " ")), leaving, retiring, orDash(f.Doubt)}
}
