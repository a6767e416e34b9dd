package main

import "time"

// work is what workloads/work.rs says.
type work struct{ stepsPerNs float64 }

func calibrate() work {
	const tries, steps = 100, 100_000
	fastest := time.Hour
	for range tries {
		start := time.Now()
		take(steps)
		fastest = min(fastest, time.Since(start))
	}
	return work{steps / float64(fastest)}
}

func (w work) run(duration time.Duration) {
	take(uint64(float64(duration) * w.stepsPerNs))
}

// Where the numbers go, so that they have to be made.
var sink uint64

//go:noinline
func take(steps uint64) {
	number := uint64(88_172_645_463_325_252)
	for range steps {
		number ^= number << 13
		number ^= number >> 7
		number ^= number << 17
	}
	if number == 0 {
		sink = number
	}
}
