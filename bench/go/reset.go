package main

import (
	"math/rand/v2"
	"time"
)

// Reset reads the clock itself, so Go has no timer_reset, where the time is given.
func resetNow(plan time.Duration) measurement {
	return countInGoroutines(plan, 2, func(end time.Time) uint64 {
		timer := time.AfterFunc(timeout, nothing)
		defer timer.Stop()
		var operations uint64
		for time.Now().Before(end) {
			for range burst {
				timer.Reset(timeout)
			}
			operations += burst
		}
		return operations
	})
}

type resettable struct {
	timer *time.Timer
	after time.Duration
}

func reset160k(plan time.Duration) measurement {
	later := moveMany(plan, "later", time.Millisecond)
	earlier := moveMany(plan, "earlier", -time.Millisecond)
	later.Figures = append(later.Figures, earlier.Figures...)
	return later
}

func moveMany(plan time.Duration, name string, step time.Duration) measurement {
	const timers, goroutines = 160_000, 2
	halves := inGoroutines(goroutines, func(n int) []resettable {
		half := make([]resettable, timers/goroutines)
		for i := range half {
			after := 2*time.Hour + time.Duration(i)*time.Millisecond
			half[i] = resettable{time.AfterFunc(after, nothing), after}
		}
		random := rand.New(rand.NewPCG(uint64(n), 0))
		random.Shuffle(len(half), func(i, j int) { half[i], half[j] = half[j], half[i] })
		return half
	})
	phase := func(duration time.Duration) uint64 {
		end := time.Now().Add(duration)
		moves := inGoroutines(goroutines, func(n int) uint64 { return visit(halves[n], step, end) })
		return moves[0] + moves[1]
	}
	phase(plan / 10)
	meter := startMeter()
	measurement := meter.stopWith(phase(plan), func(cost cost) []figure {
		return []figure{nanoseconds(name, cost.CPUNs)}
	})
	for _, half := range halves {
		for _, entry := range half {
			entry.timer.Stop()
		}
	}
	return measurement
}

// visit goes round and round until the end; the number of moves.
func visit(half []resettable, step time.Duration, end time.Time) uint64 {
	var moves uint64
	for {
		for i := range half {
			entry := &half[i]
			entry.after += step
			entry.timer.Reset(entry.after)
			moves++
			if moves%burst == 0 && !time.Now().Before(end) {
				return moves
			}
		}
	}
}
