package controlplane

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"sluice/registry"
)

// TestHistoryIsTidied looks at each pass while there is more, and once an hour when there is not.
func TestHistoryIsTidied(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		reg := &fakeRegistry{untidy: 3, listErr: errors.New("away")}
		c := &crew{Controller: &Controller{Options: Options{Registry: reg}}}
		pass := func(want int) {
			t.Helper()
			_ = c.tidyHistory(t.Context())
			if got := len(reg.tidied); got != want {
				t.Fatalf("it was tidied %d times, want %d", got, want)
			}
		}
		pass(1) // and again: nobody answered
		reg.listErr = nil
		for n := range 3 {
			pass(n + 2)
		}
		pass(4)
		time.Sleep(2 * tidyEvery)
		pass(5)
		if got, want := reg.tidied[4], time.Now().Add(-registry.HistoryAge); !got.Equal(want) {
			t.Errorf("what is older than %s is deleted, want %s", got, want)
		}
	})
}
