package main

import (
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"
)

// The names in JSON are those of the Rust program's measure.rs.

type measurement struct {
	Figures []figure `json:"figures"`
	Cost    cost     `json:"cost"`
}

type figure struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit"`
}

// What the process used for one operation.
type cost struct {
	WallNs          float64 `json:"wall_ns"`
	CPUNs           float64 `json:"cpu_ns"`
	ContextSwitches float64 `json:"context_switches"`
}

func nanoseconds(name string, value float64) figure {
	return figure{name, value, "nanoseconds"}
}

type meter struct {
	at    time.Time
	usage syscall.Rusage
}

func startMeter() meter {
	return meter{usage: usage(), at: time.Now()}
}

// stop gives the rate of the operations since the start, and what each cost.
func (m meter) stop(operations uint64) measurement {
	wall := time.Since(m.at)
	rate := float64(operations) / wall.Seconds()
	return measurement{[]figure{{"rate", rate, "per_second"}}, m.cost(wall, operations)}
}

// stopWith gives figures of the workload's own, which may be made of the cost.
func (m meter) stopWith(operations uint64, figures func(cost) []figure) measurement {
	cost := m.cost(time.Since(m.at), operations)
	return measurement{figures(cost), cost}
}

func (m meter) cost(wall time.Duration, operations uint64) cost {
	now := usage()
	n := float64(max(operations, 1))
	return cost{
		WallNs:          float64(wall.Nanoseconds()) / n,
		CPUNs:           (cpuNs(now) - cpuNs(m.usage)) / n,
		ContextSwitches: float64(now.Nvcsw+now.Nivcsw-m.usage.Nvcsw-m.usage.Nivcsw) / n,
	}
}

func usage() syscall.Rusage {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		panic(err)
	}
	return usage
}

func cpuNs(usage syscall.Rusage) float64 {
	return float64(usage.Utime.Nano() + usage.Stime.Nano())
}

// residentBytes is the memory of this process that is in RAM now. Zero where /proc does not tell.
func residentBytes() float64 {
	status, _ := os.ReadFile("/proc/self/status")
	var kib float64
	for line := range strings.Lines(string(status)) {
		if value, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			fmt.Sscan(value, &kib)
		}
	}
	return kib * 1024
}

// percentile is the value that part (0 to 1) of the values do not exceed; it sorts them.
func percentile(values []float64, part float64) float64 {
	slices.Sort(values)
	rank := int(math.Ceil(part * float64(len(values))))
	return values[max(rank-1, 0)]
}
