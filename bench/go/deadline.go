package main

import (
	"net"
	"runtime"
	"time"
)

// idleConnection is the server's end of a connection over which nothing is sent; the client's end is there so that
// it stays one.
type idleConnection struct{ server, client net.Conn }

func connectIdle() idleConnection {
	listener := must(net.Listen("tcp", "127.0.0.1:0"))
	defer listener.Close()
	client := must(net.Dial("tcp", listener.Addr().String()))
	return idleConnection{must(listener.Accept()), client}
}

// Where the clock's readings go, so that they have to be made.
var clockSink time.Time

// operate sets a fresh deadline, or reads the clock alone.
func (c idleConnection) operate(guarded bool, sink *time.Time) {
	if guarded {
		check(c.server.SetReadDeadline(time.Now().Add(time.Second)))
	} else {
		*sink = time.Now()
	}
}

// deadlineSet is both deadline_set and deadline_wait: a read is not known to the deadline.
func deadlineSet(plan time.Duration) measurement {
	const goroutines, pairs = 2, 10
	connections := make([]idleConnection, goroutines)
	for n := range connections {
		connections[n] = connectIdle()
	}
	slice := plan / (2 * pairs)
	repeat := func(guarded bool) uint64 {
		end := time.Now().Add(slice)
		counts := inGoroutines(goroutines, func(n int) uint64 {
			var operations uint64
			var sink time.Time
			for time.Now().Before(end) {
				for range burst {
					connections[n].operate(guarded, &sink)
				}
				operations += burst
				runtime.Gosched()
			}
			if n == 0 {
				clockSink = sink
			}
			return operations
		})
		return counts[0] + counts[1]
	}
	repeat(false)
	repeat(true)
	meter := startMeter()
	var beyond, whole, clock []float64
	var operations uint64
	for n := range pairs {
		cpu := map[bool]float64{}
		first := n%2 == 1
		for _, guarded := range []bool{first, !first} {
			slice := startMeter()
			count := repeat(guarded)
			cpu[guarded] = slice.stop(count).Cost.CPUNs
			operations += count
		}
		beyond = append(beyond, cpu[true]-cpu[false])
		whole = append(whole, cpu[true])
		clock = append(clock, cpu[false])
	}
	measurement := meter.stopWith(operations, func(cost) []figure {
		return []figure{
			{"CPU beyond clock", percentile(beyond, 0.5), "nanoseconds_added"},
			nanoseconds("CPU", percentile(whole, 0.5)),
			nanoseconds("clock", percentile(clock, 0.5)),
		}
	})
	runtime.KeepAlive(connections)
	return measurement
}

func readDeadline(plan time.Duration) measurement {
	const timeout, phase = 5 * time.Second, 500 * time.Millisecond
	pairs := max(4, int(plan/2/phase))
	plain, guarded := startLoad(serveEcho(4096, 0), phase), startLoad(serveEcho(4096, timeout), phase)
	meter := startMeter()
	var added, cpu, plainCPU, ratios, rates []float64
	var messages uint64
	var last answered
	run := func(l load) (answered, float64) {
		meter := startMeter()
		a := l.measure("phase")
		return a, meter.stop(a.Messages).Cost.CPUNs
	}
	for n := range pairs {
		var without answered
		var withCPU, withoutCPU float64
		if n%2 == 0 {
			without, withoutCPU = run(plain)
			last, withCPU = run(guarded)
		} else {
			last, withCPU = run(guarded)
			without, withoutCPU = run(plain)
		}
		added = append(added, withCPU-withoutCPU)
		cpu = append(cpu, withCPU)
		plainCPU = append(plainCPU, withoutCPU)
		ratios = append(ratios, last.rate()/without.rate())
		rates = append(rates, last.rate())
		messages += last.Messages + without.Messages
	}
	measurement := meter.stopWith(messages, func(cost) []figure {
		return []figure{
			{"CPU added", percentile(added, 0.5), "nanoseconds_added"},
			nanoseconds("CPU", percentile(cpu, 0.5)),
			nanoseconds("CPU plain", percentile(plainCPU, 0.5)),
			{"rate/plain", percentile(ratios, 0.5), "part"},
			{"rate", percentile(rates, 0.5), "per_second"},
			nanoseconds("p50", last.P50Ns),
			nanoseconds("p99", last.P99Ns),
		}
	})
	plain.end()
	guarded.end()
	return measurement
}
