package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"time"
)

// load is the load generator of the Rust program, which lies beside this one.
type load struct {
	to   io.WriteCloser
	from *bufio.Reader
	wait func() error
}

// answered has what load.rs prints of a phase.
type answered struct {
	Messages uint64  `json:"messages"`
	WallNs   float64 `json:"wall_ns"`
	P50Ns    float64 `json:"p50_ns"`
	P99Ns    float64 `json:"p99_ns"`
	MaxNs    float64 `json:"max_ns"`
}

// rate is in messages for each second.
func (a answered) rate() float64 {
	return float64(a.Messages) / a.WallNs * 1e9
}

// startLoad waits until the load generator is warm.
func startLoad(address net.Addr, phase time.Duration) load {
	own := must(os.Executable())
	command := exec.Command(filepath.Join(filepath.Dir(own), "bench"), "load", address.String(),
		"--connections=64", "--message=64", fmt.Sprintf("--seconds=%v", phase.Seconds()))
	command.Stderr = os.Stderr
	l := load{must(command.StdinPipe()), bufio.NewReader(must(command.StdoutPipe())), command.Wait}
	check(command.Start())
	must(l.from.ReadString('\n'))
	return l
}

// measure lets it go for a phase, whose latencies are taken together with those of the same kind.
func (l load) measure(kind string) answered {
	var a answered
	must(fmt.Fprintln(l.to, kind))
	check(json.Unmarshal([]byte(must(l.from.ReadString('\n'))), &a))
	return a
}

func (l load) end() {
	check(l.to.Close())
	check(l.wait())
}

// How many connections the servers of this process have accepted, and started a goroutine for.
var accepted atomic.Int64

// serveEcho gives each read a fresh deadline, unless the timeout is zero.
func serveEcho(buffer int, timeout time.Duration) net.Addr {
	listener := must(net.Listen("tcp", "127.0.0.1:0"))
	go func() {
		for {
			go echo(must(listener.Accept()), buffer, timeout)
			accepted.Add(1)
		}
	}()
	return listener.Addr()
}

func echo(connection net.Conn, length int, timeout time.Duration) {
	defer connection.Close()
	buffer := make([]byte, length)
	for {
		if timeout != 0 && connection.SetReadDeadline(time.Now().Add(timeout)) != nil {
			return
		}
		count, err := connection.Read(buffer)
		if err != nil {
			return
		}
		if _, err := connection.Write(buffer[:count]); err != nil {
			return
		}
	}
}

func echoBlockers(plan time.Duration, blockers blockers) measurement {
	const phase = 4 * blockersPeriod
	pairs := max(3, int(plan/2/phase))
	load := startLoad(serveEcho(4096, 0), phase)
	meter := startMeter()
	var ratios, rates []float64
	var messages uint64
	var sum blocked
	var last answered
	for range pairs {
		quiet := load.measure("quiet")
		start := time.Now()
		blocks := make(chan blocked)
		go func() { blocks <- blockers.run(start, start.Add(phase)) }()
		last = load.measure("blocked")
		sum.add(<-blocks)
		ratios = append(ratios, last.rate()/quiet.rate())
		rates = append(rates, last.rate())
		messages += quiet.Messages + last.Messages
	}
	measurement := meter.stopWith(messages, func(cost) []figure {
		return sum.appendTo([]figure{
			{"rate/quiet", percentile(ratios, 0.5), "part"},
			{"rate", percentile(rates, 0.5), "per_second"},
			nanoseconds("p50", last.P50Ns),
			nanoseconds("p99", last.P99Ns),
			nanoseconds("max", last.MaxNs),
		})
	})
	load.end()
	return measurement
}

func must[T any](value T, err error) T {
	check(err)
	return value
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
