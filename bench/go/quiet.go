package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

func usHandlers(plan time.Duration) measurement {
	const goroutines, handlers = 64, 4
	work := calibrate()
	measurement := countInGoroutines(plan, goroutines, func(end time.Time) uint64 {
		var rounds uint64
		for time.Now().Before(end) {
			time.Sleep(500 * time.Microsecond)
			inGoroutines(handlers, func(int) struct{} {
				work.run(1500 * time.Nanosecond)
				return struct{}{}
			})
			rounds++
		}
		return rounds
	})
	measurement.Figures = append([]figure{nanoseconds("CPU", measurement.Cost.CPUNs)}, measurement.Figures...)
	return measurement
}

func idleTicker(plan time.Duration) measurement {
	const tick = time.Second
	ticks := max(10, int(plan/tick))
	time.Sleep(tick)
	before := sleeps()
	meter := startMeter()
	start := time.Now()
	for n := range ticks {
		time.Sleep(time.Until(start.Add(tick * time.Duration(n+1))))
	}
	seconds := time.Since(start).Seconds()
	return meter.stopWith(uint64(ticks), func(cost cost) []figure {
		var wakeUps float64
		for thread, count := range sleeps() {
			wakeUps += count - before[thread]
		}
		return []figure{
			{"wake-ups in 1 s", wakeUps / seconds, "count"},
			nanoseconds("CPU in 1 s", cost.CPUNs*float64(ticks)/seconds),
		}
	})
}

// sleeps gives how often each thread has gone to sleep.
func sleeps() map[string]float64 {
	counts := map[string]float64{}
	files, _ := filepath.Glob("/proc/self/task/*/status")
	for _, file := range files {
		status, _ := os.ReadFile(file)
		for line := range strings.Lines(string(status)) {
			if value, ok := strings.CutPrefix(line, "voluntary_ctxt_switches:"); ok {
				var count float64
				fmt.Sscan(value, &count)
				counts[file] = count
			}
		}
	}
	return counts
}
