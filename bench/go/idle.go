package main

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

func idleConns(plan, timeout time.Duration) measurement {
	const first, connections, idle = 64, 8000, 5 * time.Second
	clients := startClients(serveEcho(64, timeout))
	clients.connect(first)
	before := residentBytes()
	clients.connect(connections)
	growth := residentBytes() - before
	slept := sleeps()
	meter := startMeter()
	time.Sleep(max(plan, idle))
	seconds := time.Since(meter.at).Seconds()
	measurement := meter.stopWith(1, func(cost cost) []figure {
		var wakeUps float64
		for thread, count := range sleeps() {
			wakeUps += count - slept[thread]
		}
		return []figure{
			{"RSS/conn", growth / connections, "bytes"},
			{"wake-ups in 1 s", max(wakeUps-1, 0) / seconds, "count"},
			nanoseconds("CPU in 1 s", cost.CPUNs/seconds),
		}
	})
	clients.ask("echo")
	check(clients.to.Close())
	check(clients.wait())
	return measurement
}

// clients is the process that holds connections, which is the Rust program.
type clients struct {
	load
	connected int64
}

func startClients(address net.Addr) *clients {
	own := must(os.Executable())
	command := exec.Command(filepath.Join(filepath.Dir(own), "bench"), "hold", address.String())
	command.Stderr = os.Stderr
	l := load{must(command.StdinPipe()), bufio.NewReader(must(command.StdoutPipe())), command.Wait}
	check(command.Start())
	return &clients{load: l}
}

func (c *clients) ask(what string) {
	must(fmt.Fprintln(c.to, what))
	if line := must(c.from.ReadString('\n')); strings.TrimSpace(line) != "done" {
		panic("the clients failed: " + line)
	}
}

// connect waits until the server has accepted so many more, and its goroutines wait.
func (c *clients) connect(more int64) {
	c.ask(fmt.Sprint(more))
	c.connected += more
	for start := time.Now(); accepted.Load() < c.connected; time.Sleep(10 * time.Millisecond) {
		if time.Since(start) > 30*time.Second {
			panic("the server does not accept")
		}
	}
	time.Sleep(time.Second)
}
