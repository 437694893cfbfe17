package main

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"sluice/controlplane"
)

// SIGTERM follows when all gateways are in step, not before each had the time to notice, and at the limit at the latest.
func TestReleased(t *testing.T) {
	t.Parallel()
	const never = time.Hour
	for _, tt := range []struct {
		name   string
		inStep time.Duration // when the second gateway comes in step
		limit  time.Duration
		want   time.Duration
	}{
		{"in step already", 0, 10 * time.Second, noticeTime},
		{"in step later", 5 * time.Second, 10 * time.Second, 5 * time.Second},
		{"never in step", never, 10 * time.Second, 10 * time.Second},
		{"no time at all", never, 0, 0},
		{"less than it takes to notice", 0, time.Second, time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				m := &membership{gateways: func(context.Context) ([]controlplane.Status, error) {
					second := controlplane.Status{Phase: controlplane.Waiting}
					if time.Since(began) >= tt.inStep {
						second.Phase = controlplane.InStep
					}
					return []controlplane.Status{{Phase: controlplane.InStep}, second}, nil
				}}
				<-m.released(t.Context(), tt.limit)
				if took := time.Since(began); took < tt.want || took > tt.want+askEvery {
					t.Errorf("released after %s, want %s", took, tt.want)
				}
			})
		})
	}
}

// Nobody who can say so is no reason to go on as if the gateways had let go.
func TestReleasedWithoutAnAnswer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		m := &membership{gateways: func(context.Context) ([]controlplane.Status, error) { return nil, errors.New("away") }}
		<-m.released(t.Context(), 7*time.Second)
		if took := time.Since(began); took != 7*time.Second {
			t.Errorf("released after %s", took)
		}
	})
}
