package main

import (
	"math/rand/v2"
	"runtime"
	"time"
)

const timeout = 30 * time.Second

// A new timer for each operation, which is armed: one with a channel would not be before somebody waits for it.
func churn(plan time.Duration, goroutines int) measurement {
	return countInGoroutines(plan, goroutines, func(end time.Time) uint64 {
		var operations uint64
		for time.Now().Before(end) {
			for range burst {
				time.AfterFunc(timeout, nothing).Stop()
			}
			operations += burst
		}
		return operations
	})
}

// One timer of each goroutine, used again and again.
func restart(plan time.Duration, goroutines int) measurement {
	return countInGoroutines(plan, goroutines, func(end time.Time) uint64 {
		timer := time.AfterFunc(timeout, nothing)
		defer timer.Stop()
		var operations uint64
		for time.Now().Before(end) {
			for range burst {
				timer.Stop()
				timer.Reset(timeout)
			}
			operations += burst
		}
		return operations
	})
}

func nothing() {}

func churn10m(plan time.Duration) measurement {
	const pending, goroutines = 10_000_000, 2
	before := residentBytes()
	timers := inGoroutines(goroutines, func(n int) []*time.Timer {
		random := rand.New(rand.NewPCG(uint64(n), 0))
		timers := make([]*time.Timer, 0, pending/goroutines)
		for range pending / goroutines {
			timers = append(timers, time.AfterFunc(time.Hour+time.Duration(random.Int64N(int64(time.Hour))), nothing))
		}
		return timers
	})
	growth := residentBytes() - before
	measurement := churn(plan, goroutines)
	runtime.KeepAlive(timers)
	measurement.Figures = append(measurement.Figures, figure{"RSS/timer", growth / pending, "bytes"})
	return measurement
}
