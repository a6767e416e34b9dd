package main

import (
	"math/rand/v2"
	"runtime"
	"slices"
	"sync/atomic"
	"time"
)

// sleepers are many goroutines that sleep once each, and how late each of them was: a slot that no other
// goroutine writes to, and one counter for all.
type sleepers struct {
	late []line
	left line
	done chan struct{}
}

// line is a number in a cache line of its own.
type line struct {
	number atomic.Int64
	_      [56]byte
}

func startSleepers(count int, at func(n int) time.Time) *sleepers {
	s := &sleepers{late: make([]line, count), done: make(chan struct{})}
	s.left.number.Store(int64(count))
	for n := range count {
		// The pages are there before anyone is late.
		s.late[n].number.Store(0)
		go s.sleep(at(n), &s.late[n])
	}
	return s
}

func (s *sleepers) sleep(at time.Time, slot *line) {
	time.Sleep(time.Until(at))
	slot.number.Store(int64(time.Since(at)))
	if s.left.number.Add(-1) == 0 {
		close(s.done)
	}
}

func (s *sleepers) lateNs() []float64 {
	late := make([]float64, len(s.late))
	for n := range s.late {
		late[n] = float64(s.late[n].number.Load())
	}
	return late
}

func fire(timers int, lead time.Duration) measurement {
	start := time.Now().Add(lead)
	sleepers := startSleepers(timers, func(n int) time.Time {
		return start.Add(time.Duration(float64(time.Second) * float64(n) / float64(timers)))
	})
	time.Sleep(time.Until(start.Add(-lead / 10)))
	mustBeBefore(start)
	meter := startMeter()
	<-sleepers.done
	return meter.stopWith(uint64(timers), func(cost cost) []figure {
		late := sleepers.lateNs()
		return []figure{
			nanoseconds("CPU", cost.CPUNs),
			nanoseconds("late p50", percentile(late, 0.5)),
			nanoseconds("late p99", percentile(late, 0.99)),
		}
	})
}

func mustBeBefore(at time.Time) {
	if !time.Now().Before(at) {
		panic("the goroutines took too long to start: the machine is too slow for this")
	}
}

func timerBurst() measurement {
	const timers = 100_000
	// More turns than anyone has in a burst, and before it, because the collector runs for so much memory.
	waits := make([]float64, 0, 16<<20)
	at := time.Now().Add(2 * time.Second)
	sleepers := startSleepers(timers, func(int) time.Time { return at })
	time.Sleep(time.Until(at.Add(-100 * time.Millisecond)))
	mustBeBefore(at)
	meter := startMeter()
	waits = inGoroutines(1, func(int) []float64 { return takeTurns(at, sleepers, waits) })[0]
	return meter.stopWith(timers, func(cost) []figure {
		return []figure{
			nanoseconds("wait max", percentile(waits, 1)),
			nanoseconds("wait p99", percentile(waits, 0.99)),
			nanoseconds("all fired", percentile(sleepers.lateNs(), 1)),
		}
	})
}

// takeTurns yields until all sleepers are done, and appends how long each turn took to come from at on.
func takeTurns(at time.Time, sleepers *sleepers, waits []float64) []float64 {
	last := time.Now()
	for {
		runtime.Gosched()
		now := time.Now()
		if now.After(at) {
			if last.Before(at) {
				last = at
			}
			waits = append(waits, float64(now.Sub(last)))
			if sleepers.left.number.Load() == 0 {
				return waits
			}
		}
		last = now
	}
}

func lateness(plan time.Duration, goroutines int) measurement {
	phase := func(duration time.Duration) []float64 {
		end := time.Now().Add(duration)
		return slices.Concat(inGoroutines(goroutines, func(n int) []float64 {
			return sleepOften(end, duration, uint64(n))
		})...)
	}
	phase(plan / 10)
	meter := startMeter()
	late := phase(plan)
	return meter.stopWith(uint64(len(late)), func(cost cost) []figure {
		return []figure{
			nanoseconds("late p50", percentile(late, 0.5)),
			nanoseconds("late p99", percentile(late, 0.99)),
			nanoseconds("CPU", cost.CPUNs),
		}
	})
}

// sleepOften gives how late each sleep was.
func sleepOften(end time.Time, duration time.Duration, seed uint64) []float64 {
	const shortest, longest = 100 * time.Microsecond, 5 * time.Millisecond
	random := rand.New(rand.NewPCG(seed, 0))
	late := make([]float64, 0, duration/((shortest+longest)/2))
	for {
		sleep := shortest + time.Duration(random.Int64N(int64(longest-shortest)))
		start := time.Now()
		time.Sleep(sleep)
		now := time.Now()
		late = append(late, float64(max(now.Sub(start)-sleep, 0)))
		if !now.Before(end) {
			return late
		}
	}
}
