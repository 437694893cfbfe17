package nginx

import (
	"fmt"
	"log/slog"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"sluice/internal/testport"
)

// BenchmarkApply measures from the call of Apply to the first new answer, beside the floor: a bare nginx -t, a switch of
// the link and a HUP, to the same, by turns in the same nginx. Between two turns nginx comes to rest.
func BenchmarkApply(b *testing.B) {
	o, port := options(b), testport.Free(b)
	o.Logger = slog.New(slog.DiscardHandler)
	d := open(b, o)
	text := func(answer string) string { return site(port, answer, "") }
	if _, err := d.Apply(b.Context(), bundle(text("start"))); err != nil {
		b.Fatal(err)
	}
	var ours, floor, proof []float64
	// measure returns how long it is until nginx answers as do makes it, and until do ends.
	measure := func(answer string, do func() error) (first, whole float64) {
		b.Helper()
		done := make(chan error, 1)
		begin := time.Now()
		go func() { done <- do() }()
		for {
			if got, err := get(port); err == nil && got == answer {
				break
			}
		}
		first = time.Since(begin).Seconds() * 1000
		if err := <-done; err != nil {
			b.Fatal(err)
		}
		return first, time.Since(begin).Seconds() * 1000
	}
	rest := func() {
		b.Helper()
		if _, err := d.repair(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	for i := 0; b.Loop(); i++ {
		answer := fmt.Sprint("ours ", i)
		first, whole := measure(answer, func() error {
			_, err := d.Apply(b.Context(), bundle(text(answer)))
			return err
		})
		ours, proof = append(ours, first), append(proof, whole)

		answer = fmt.Sprint("bare ", i)
		s, err := d.stage(bundle(text(answer)), manifest{Revision: answer})
		if err != nil {
			b.Fatal(err)
		}
		if err := d.poise(s.ID); err != nil {
			b.Fatal(err)
		}
		first, _ = measure(answer, func() error {
			if out, err := exec.Command("nginx", "-t", "-q", "-p", d.o.Dir, "-c", filepath.Join(s.dir, "nginx.conf")).CombinedOutput(); err != nil {
				return fmt.Errorf("%w: %s", err, out)
			}
			if _, err := d.swap(); err != nil {
				return err
			}
			return d.master.signal(syscall.SIGHUP)
		})
		floor = append(floor, first)
		rest()
	}
	median := func(of []float64) float64 {
		slices.Sort(of)
		return of[len(of)/2]
	}
	b.ReportMetric(0, "ns/op") // a mean over both ways says nothing
	b.ReportMetric(median(ours), "ms-first")
	b.ReportMetric(median(floor), "ms-floor")
	b.ReportMetric(median(ours)/median(floor), "ratio")
	b.ReportMetric(median(proof), "ms-proof")
}
