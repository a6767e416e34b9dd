// The workloads of this folder's Rust program about timers, blocking and deadlines, in Go: the same names and the same command line
// (run go WORKLOAD --seconds=S), and the same outcome as JSON. What a workload models is said there.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"
)

const processors = 2

// The clock is looked at for the end of a workload after so many operations.
const burst = 64

var workloads = map[string]func(plan time.Duration) measurement{
	"timer_churn":           func(plan time.Duration) measurement { return churn(plan, 2) },
	"timer_churn_100":       func(plan time.Duration) measurement { return churn(plan, 100) },
	"timer_churn_10m":       churn10m,
	"timer_restart":         func(plan time.Duration) measurement { return restart(plan, 2) },
	"timer_reset_now":       resetNow,
	"timer_reset_160k":      reset160k,
	"timer_fire":            func(time.Duration) measurement { return fire(100_000, 2*time.Second) },
	"timer_fire_1m":         func(time.Duration) measurement { return fire(1_000_000, 6*time.Second) },
	"timer_lateness_1000":   func(plan time.Duration) measurement { return lateness(plan, 1000) },
	"timer_lateness_10":     func(plan time.Duration) measurement { return lateness(plan, 10) },
	"timer_burst":           func(time.Duration) measurement { return timerBurst() },
	"blockers_sleep_1":      func(plan time.Duration) measurement { return besideBlockers(plan, asleep(1), true) },
	"blockers_sleep_2":      func(plan time.Duration) measurement { return besideBlockers(plan, asleep(2), true) },
	"blockers_spin_1":       func(plan time.Duration) measurement { return besideBlockers(plan, onCPU(1), false) },
	"blockers_spin_2":       func(plan time.Duration) measurement { return besideBlockers(plan, onCPU(2), false) },
	"echo_blockers_sleep_1": func(plan time.Duration) measurement { return echoBlockers(plan, asleep(1)) },
	"echo_blockers_sleep_2": func(plan time.Duration) measurement { return echoBlockers(plan, asleep(2)) },
	"echo_blockers_spin_1":  func(plan time.Duration) measurement { return echoBlockers(plan, onCPU(1)) },
	"echo_blockers_spin_2":  func(plan time.Duration) measurement { return echoBlockers(plan, onCPU(2)) },
	"echo_blockers_0":       func(plan time.Duration) measurement { return echoBlockers(plan, asleep(0)) },
	"inline_blocking":       inlineBlocking,
	"us_handlers":           usHandlers,
	"idle_ticker":           idleTicker,
	"deadline_set":          deadlineSet,
	"deadline_wait":         deadlineSet,
	"read_deadline":         readDeadline,
	"idle_conns":            func(plan time.Duration) measurement { return idleConns(plan, time.Hour) },
	"idle_conns_plain":      func(plan time.Duration) measurement { return idleConns(plan, 0) },
}

func main() {
	runtime.GOMAXPROCS(processors)
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench-go:", err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	if len(arguments) > 0 && arguments[0] == "operate" {
		return operate(arguments[1:])
	}
	if len(arguments) != 4 || arguments[0] != "run" || arguments[1] != "go" {
		return fmt.Errorf("run go WORKLOAD --seconds=S is expected, not %q", arguments)
	}
	seconds, err := strconv.ParseFloat(strings.TrimPrefix(arguments[3], "--seconds="), 64)
	if err != nil {
		return err
	}
	outcome := map[string]any{}
	name := arguments[2]
	if workload, ok := workloads[name]; ok {
		outcome["measured"] = workload(time.Duration(seconds * float64(time.Second)))
	} else if name == "timer_reset" {
		outcome["skipped"] = "Reset reads the clock itself: see timer_reset_now"
	} else {
		outcome["skipped"] = "it is not written in Go"
	}
	return json.NewEncoder(os.Stdout).Encode(outcome)
}

// inGoroutines runs the function so many times at once; what it returned.
func inGoroutines[T any](count int, function func(n int) T) []T {
	results := make([]T, count)
	done := make(chan struct{})
	for n := range count {
		go func() {
			results[n] = function(n)
			done <- struct{}{}
		}()
	}
	for range count {
		<-done
	}
	return results
}

// countInGoroutines measures goroutines that count their operations until the time is over, after a tenth
// of the time that does not count.
func countInGoroutines(plan time.Duration, count int, until func(end time.Time) uint64) measurement {
	phase := func(duration time.Duration) uint64 {
		end := time.Now().Add(duration)
		var sum uint64
		for _, operations := range inGoroutines(count, func(int) uint64 { return until(end) }) {
			sum += operations
		}
		return sum
	}
	phase(plan / 10)
	meter := startMeter()
	return meter.stop(phase(plan))
}
