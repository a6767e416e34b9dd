package main

import (
	"os"
	"slices"
	"sync/atomic"
	"syscall"
	"time"
)

const blockersPeriod = 150 * time.Millisecond

// blockers are goroutines that block their threads. Those that are asleep are so in a raw system call: time.Sleep
// would park the goroutine. Go's scheduler sees the call, as it sees those of files, and takes the processor away.
type blockers struct {
	count int
	long  time.Duration
	block func()
}

func asleep(count int) blockers {
	const long = 100 * time.Millisecond
	return blockers{count, long, func() { blockThread(long) }}
}

func onCPU(count int) blockers {
	const long = 50 * time.Millisecond
	work := calibrate()
	return blockers{count, long, func() { work.run(long) }}
}

// blockThread sleeps in the kernel; a signal, as the runtime sends them to preempt, does not end it.
func blockThread(duration time.Duration) {
	left := syscall.NsecToTimespec(int64(duration))
	for syscall.Nanosleep(&left, &left) == syscall.EINTR {
	}
}

// blocked is how often blockers blocked, and how often they were to.
type blocked struct{ blocks, planned int }

func (b *blocked) add(other blocked) {
	b.blocks += other.blocks
	b.planned += other.planned
}

// appendTo appends which part of the planned blocks there were, if there were to be any.
func (b blocked) appendTo(figures []figure) []figure {
	if b.planned == 0 {
		return figures
	}
	return append(figures, figure{"blocks", float64(b.blocks) / float64(b.planned), "part"})
}

// run blocks at start and each period after it, as often as that is over before the end.
func (b blockers) run(start, end time.Time) blocked {
	blocks := inGoroutines(b.count, func(int) int {
		blocks := 0
		for at := start; !at.Add(b.long).After(end); {
			time.Sleep(time.Until(at))
			b.block()
			blocks++
			at = start.Add((time.Since(start)/blockersPeriod + 1) * blockersPeriod)
		}
		return blocks
	})
	sum := blocked{planned: b.count * int((end.Sub(start)-b.long)/blockersPeriod+1)}
	for _, blocks := range blocks {
		sum.blocks += blocks
	}
	return sum
}

// besideBlockers has no CPU time for each sleep where blockers compute: it cannot be told from theirs, which go from
// thread to thread.
func besideBlockers(plan time.Duration, blockers blockers, withCPU bool) measurement {
	const goroutines, lead = 200, 20 * time.Millisecond
	phase := func(duration time.Duration) ([]float64, blocked) {
		start := time.Now()
		end := start.Add(duration)
		blocks := make(chan blocked)
		go func() { blocks <- blockers.run(start.Add(lead), end) }()
		late := slices.Concat(inGoroutines(goroutines, func(n int) []float64 {
			return sleepOften(end, duration, uint64(n))
		})...)
		return late, <-blocks
	}
	phase(2 * blockersPeriod)
	meter := startMeter()
	late, blocks := phase(max(plan, time.Second))
	return meter.stopWith(uint64(len(late)), func(cost cost) []figure {
		figures := []figure{
			nanoseconds("late p99", percentile(late, 0.99)),
			nanoseconds("late p50", percentile(late, 0.5)),
			nanoseconds("late max", percentile(late, 1)),
		}
		if withCPU {
			figures = append(figures, nanoseconds("CPU", cost.CPUNs))
		}
		return blocks.appendTo(figures)
	})
}

func inlineBlocking(plan time.Duration) measurement {
	const goroutines, rounds = 1000, 3
	round := func() (float64, []float64) {
		var done atomic.Bool
		ticks := make(chan []float64)
		go func() { ticks <- tick(&done) }()
		start := time.Now()
		inGoroutines(goroutines, func(int) struct{} {
			blockThread(time.Millisecond)
			return struct{}{}
		})
		took := float64(time.Since(start))
		done.Store(true)
		return took, <-ticks
	}
	first, firstLate := round()
	var took, late []float64
	meter := startMeter()
	start := time.Now()
	for len(took) < rounds || time.Since(start) < plan {
		time, ticks := round()
		took = append(took, time)
		late = append(late, ticks...)
	}
	return meter.stopWith(uint64(goroutines*len(took)), func(cost) []figure {
		return []figure{
			nanoseconds("all done", percentile(took, 0.5)),
			nanoseconds("tick late p99", percentile(late, 0.99)),
			nanoseconds("first all done", first),
			nanoseconds("first late p99", percentile(firstLate, 0.99)),
			{"threads", threads(), "count"},
		}
	})
}

// tick leaves no tick out: those that are overdue come one after the other.
func tick(done *atomic.Bool) []float64 {
	const tick = time.Millisecond
	var late []float64
	due := time.Now()
	for {
		due = due.Add(tick)
		time.Sleep(time.Until(due))
		now := time.Now()
		late = append(late, float64(now.Sub(due)))
		if done.Load() && now.Before(due.Add(tick)) {
			return late
		}
	}
}

func threads() float64 {
	entries, _ := os.ReadDir("/proc/self/task")
	return float64(len(entries))
}
